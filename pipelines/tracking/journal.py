"""The journal of a run: every event, one JSON object a line, in the run directory; what MLflow is told is read from here.

    {"event": "open", "time": 1700000000000, "experiment": "resnet", "name": "20260101-120000", "session": 1, ...}
    {"event": "metrics", "time": 1700000001000, "step": 10, "values": {"train/loss": 0.7}}
    {"event": "close", "time": 1700000002000, "status": "FINISHED", ...}

Lines are only ever appended, and each carries its own time: delivering a line twice is the same as delivering it once.
"""

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.outside import without_secrets

FOLDER = "tracking"
PATHS = ("path", "parent", "checkpoints")  # followed later, so they are kept to the letter


def folder(run_dir: Path) -> Path:
    """The folder of a run directory in which tracking keeps its own files."""
    return run_dir / FOLDER


def append(run_dir: Path, event: str, **values: Any) -> None:
    """Adds one event, with the time in milliseconds and without the passwords that its texts may carry."""
    kept = {name: value if name in PATHS else without_secrets(value) for name, value in values.items()}
    line = json.dumps({"event": event, "time": int(time.time() * 1000), **kept}, allow_nan=False) + "\n"
    with _journal(run_dir).open("ab") as journal:
        journal.write(line.encode())  # One write: a reader sees a whole line or an unfinished last one.


def read(run_dir: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Every complete event from the byte `offset` on, each with the offset of the next."""
    if not _journal(run_dir).exists():
        return
    with _journal(run_dir).open("rb") as journal:
        journal.seek(offset)
        for line in journal:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            if line.strip(b"\0 \n"):
                yield json.loads(line), offset


def mend(run_dir: Path) -> None:
    """Cuts off a last line that a killed process left unfinished."""
    path = _journal(run_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as journal:
        journal.seek(-1, os.SEEK_END)
        if journal.read() == b"\n":
            return
    os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def close_abandoned(run_dir: Path) -> int | None:
    """Closes the journal of a run that was killed without a word, unless a new session has taken it up.

    Returns:
        The process that still holds a run that was not closed, None when there is nothing more to do.
    """
    lock = folder(run_dir) / "run.lock"
    try:
        with locked(lock, wait=False):
            mend(run_dir)
            if _open(run_dir):
                failure = "the process ended without a word: killed, or out of memory"
                append(run_dir, "close", status="KILLED", failure=failure, checkpoints={})
    except BlockingIOError:
        return int(lock.read_text() or 0) if _open(run_dir) else None
    return None


def _open(run_dir: Path) -> bool:
    last = None
    for event, _ in read(run_dir):
        last = event["event"] if event["event"] in ("open", "close") else last  # Words may be added later.
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


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(text.encode("utf-8", "surrogateescape"))
    part.replace(path)


def text(path: Path) -> str:
    """What `write` wrote: bytes that are not UTF-8 and line ends are kept, a patch has to be exact."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds `path` as a lock between processes; released when the holder ends, however it ends.

    Raises:
        BlockingIOError: another process holds it and `wait` is false; `path` then holds that process's id.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def held(path: Path) -> bool:
    """Whether a process holds `path` as a lock."""
    if not path.exists():
        return False
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _journal(run_dir: Path) -> Path:
    return folder(run_dir) / "journal.jsonl"
