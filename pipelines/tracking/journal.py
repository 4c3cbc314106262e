"""The journal of a run: every event, one JSON object a line, in the run directory; what MLflow is told is read from here.

    {"event": "open", "time": 1700000000000, "experiment": "resnet", "name": "20260101-120000", "session": 1, ...}
    {"event": "metrics", "time": 1700000001000, "step": 10, "values": {"train/loss": 0.7}}
    {"event": "close", "time": 1700000002000, "status": "FINISHED", ...}

Lines are only ever appended, and each carries its own time: delivering a line twice is the same as delivering it once.
"""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.outside import without_secrets
from pipelines.system import durable

FOLDER = "tracking"
PATHS = ("path", "parent", "checkpoints")  # followed later, so they are kept to the letter


def folder(run_dir: Path) -> Path:
    """The folder of a run directory in which tracking keeps its own files."""
    return run_dir / FOLDER


def append(run_dir: Path, event: str, **values: Any) -> None:
    """Adds one event, with the time in milliseconds and without the passwords that its texts may carry."""
    kept = {
        name: value if name in PATHS else without_secrets(value) for name, value in values.items()
    }
    entry = {"event": event, "time": int(time.time() * 1000), **kept}
    durable.append(_journal(run_dir), durable.as_lines(entry, allow_nan=False))


def read(run_dir: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Every complete event from the byte `offset` on, each with the offset of the next."""
    return durable.read_lines(_journal(run_dir), offset)


def mend(run_dir: Path) -> None:
    """Cuts off a last line that a killed process left unfinished."""
    path = _journal(run_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.cut_torn_line(path)


def close_abandoned(run_dir: Path) -> int | None:
    """Closes the journal of a run that was killed without a word, unless a new session has taken it up.

    Returns:
        The process that still holds a run that was not closed, None when there is nothing more to do.
    """
    lock = folder(run_dir) / "run.lock"
    try:
        with durable.locked(lock, wait=False):
            mend(run_dir)
            if _open(run_dir):
                failure = "the process ended without a word: killed, or out of memory"
                append(run_dir, "close", status="KILLED", failure=failure, checkpoints={})
    except BlockingIOError:
        return durable.holder(lock) if _open(run_dir) else None
    return None


def _open(run_dir: Path) -> bool:
    last = None
    for event, _ in read(run_dir):
        last = (
            event["event"] if event["event"] in ("open", "close") else last
        )  # Words may be added later.
    return last == "open"


def spell(value: float) -> float | str:
    """A figure as JSON can hold it: what is not finite becomes `nan`, `inf` or `-inf`."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def metrics(run_dir: Path) -> dict[str, dict[int, float]]:
    """Every figure recorded in `run_dir`: name, then step."""
    return collect(event for event, _ in read(run_dir))


def collect(events: Iterator[Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """The figures among `events`: name, then step."""
    found: dict[str, dict[int, float]] = {}
    for event in events:
        if event["event"] == "metrics":
            for name, value in event["values"].items():
                found.setdefault(name, {})[event["step"]] = float(value)
    return found


def _journal(run_dir: Path) -> Path:
    return folder(run_dir) / "journal.jsonl"
