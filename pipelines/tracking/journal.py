"""The journal of a run: every event, one JSON object a line, in the run directory.

What is sent to MLflow is read from here:

    {"event": "open", "time": 1700000000000, "experiment": "resnet", "name": "20260101", ...}
    {"event": "metrics", "time": 1700000001000, "step": 10, "values": {"train/loss": 0.7}}
    {"event": "close", "time": 1700000002000, "status": "FINISHED", ...}

Lines are only ever appended, and each carries its own time: delivering a line twice is the same as
delivering it once.
"""

import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.outside import without_secrets
from pipelines.system import durable

FOLDER = "tracking"
FILE = "journal.jsonl"
PATHS = ("path", "parent", "checkpoints")  # followed later, so they are kept to the letter
ABANDONED = "the process died without closing its run (killed, or out of memory)"


def folder(run_dir: Path) -> Path:
    """The folder of a run directory in which tracking keeps its own files."""
    return run_dir / FOLDER


def exists(run_dir: Path) -> bool:
    """Whether a run was recorded in this directory.

    What MLflow keeps among a run's artifacts (`<run id>/artifacts`) is a copy, not a run.
    """
    if not _journal(run_dir).exists():
        return False
    absolute = run_dir.absolute()
    is_copy = absolute.name == "artifacts" and re.fullmatch("[0-9a-f]{32}", absolute.parent.name)
    return not is_copy


def run_lock(run_dir: Path) -> Path:
    """The file that is locked while a process records in `run_dir`."""
    return folder(run_dir) / "run.lock"


def sender_lock(run_dir: Path) -> Path:
    """The file that is locked while a process tells MLflow about the run in `run_dir`."""
    return folder(run_dir) / "sender.lock"


def append(run_dir: Path, event: str, **values: Any) -> None:
    """Adds one event, with the time in milliseconds and without passwords in its texts."""
    entry = {"event": event, "time": int(time.time() * 1000)}
    for name, value in values.items():
        entry[name] = value if name in PATHS else without_secrets(value)
    durable.append(_journal(run_dir), durable.as_lines(entry, allow_nan=False))


def read(run_dir: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Every complete event from the byte `offset` on, each with the offset of the next."""
    return durable.read_lines(_journal(run_dir), offset)


def repair(run_dir: Path) -> None:
    """Cuts off a last line that a killed process left unfinished; makes the folder if need be."""
    path = _journal(run_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.cut_torn_line(path)


def close_abandoned(run_dir: Path) -> int | None:
    """Closes the journal of a run whose process died, unless a new session has taken it up.

    Returns:
        The process that still holds a run that was not closed, None when there is nothing to do.
    """
    lock = run_lock(run_dir)
    try:
        with durable.locked(lock, wait=False):
            repair(run_dir)
            if _is_open(run_dir):
                append(run_dir, "close", status="KILLED", failure=ABANDONED, checkpoints={})
    except BlockingIOError:
        return durable.holder(lock) if _is_open(run_dir) else None
    return None


def spell(value: float) -> float | str:
    """A figure as JSON can hold it: what is not finite becomes `nan`, `inf` or `-inf`."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def metrics(run_dir: Path) -> dict[str, dict[int, float]]:
    """Every figure recorded in `run_dir`: name, then step."""
    return collect(event for event, _ in read(run_dir))


def collect(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """The figures among `events`: name, then step."""
    figures: dict[str, dict[int, float]] = {}
    for event in events:
        if event["event"] != "metrics":
            continue
        for name, value in event["values"].items():
            steps = figures.setdefault(name, {})
            steps[event["step"]] = float(value)
    return figures


def _is_open(run_dir: Path) -> bool:
    last = None
    for event, _ in read(run_dir):
        # Others may follow the end of a run: words that are added later.
        if event["event"] in ("open", "close"):
            last = event["event"]
    return last == "open"


def _journal(run_dir: Path) -> Path:
    return folder(run_dir) / FILE
