"""What a benchmark has measured of this tool and of what it is compared with, and how the two stand."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measured:
    """One figure of both tools, run by run, in turns.

    Attributes:
        name: what was measured; recorded ratios are found by it.
        less: whether less is better, as of seconds; else more is, as of steps a second.
        note: what a reader must know so that the figure does not flatter.
    """

    name: str
    unit: str
    ours: list[float]
    theirs: list[float]
    less: bool = True
    note: str = ""


@dataclass(frozen=True)
class Ratio:
    """How many times as good as the other tool: the middle of the runs, the worst and the best."""

    middle: float
    low: float
    high: float


def ratio(measured: Measured) -> Ratio:
    """The ratio of the medians, and the least and most that any two runs next to each other give."""
    pairs = zip(measured.ours, measured.theirs, strict=True)
    each = [_times(ours, theirs, measured.less) for ours, theirs in pairs]
    ours = statistics.median(measured.ours)
    theirs = statistics.median(measured.theirs)
    middle = _times(ours, theirs, measured.less)
    return Ratio(middle, min(middle, *each), max(middle, *each))


def _times(ours: float, theirs: float, less: bool) -> float:
    return theirs / ours if less else ours / theirs


def of_costs(name: str, ours: Sequence[Any], theirs: Sequence[Any]) -> list[Measured]:
    """Wall time, CPU time and memory of whole processes, as `benchmarks.data` measures them."""
    measured = []
    for what, unit, field in (
        ("wall time", "s", "wall_s"),
        ("CPU time", "s", "cpu_s"),
        ("memory", "MB", "peak_mb"),
    ):
        own = [getattr(cost, field) for cost in ours]
        official = [getattr(cost, field) for cost in theirs]
        measured.append(Measured(f"{name}, {what}", unit, own, official))
    return measured


def of_paces(name: str, ours: Sequence[Any], theirs: Sequence[Any]) -> list[Measured]:
    """Steps a second and the time to the first ones, as `benchmarks.train` measures them."""
    own = [pace.rate for pace in ours]
    official = [pace.rate for pace in theirs]
    rate = Measured(f"{name}, steps", "steps/s", own, official, less=False)
    own = [pace.start_s for pace in ours]
    official = [pace.start_s for pace in theirs]
    return [rate, Measured(f"{name}, start", "s", own, official)]


def line(measured: Measured) -> str:
    """The medians, the ratio and its spread."""
    ours = statistics.median(measured.ours)
    theirs = statistics.median(measured.theirs)
    stand = ratio(measured)
    note = f"   {measured.note}" if measured.note else ""
    return (
        f"{measured.name:<34} {ours:8.2f} {measured.unit:<8} {theirs:8.2f} {measured.unit:<8} "
        f"{stand.middle:6.2f} x  ({stand.low:.2f} to {stand.high:.2f}){note}"
    )


def write(file: Path | None, measured: Sequence[Measured]) -> None:
    """Writes what was measured, where a file is asked for."""
    if file is not None:
        rows = [asdict(row) for row in measured]
        file.write_text(json.dumps(rows, indent=1) + "\n")


def read(file: Path) -> list[Measured]:
    """What `write` has written."""
    return [Measured(**row) for row in json.loads(file.read_text())]
