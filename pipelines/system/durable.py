"""Files that survive a killed process: whole or absent, held by one process, or only ever appended to.

Nothing here waits for the disk, unless it is asked to: a machine that loses power may lose the last seconds.
"""

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol, Self

PARTIAL = ".partial"  # ends the name of what is not whole yet


class AnyPath(Protocol):
    """What a local path and one of `etils.epath` have in common."""

    @property
    def name(self) -> str: ...
    @property
    def parent(self) -> Any: ...
    def with_name(self, name: str) -> Self: ...
    def open(self, mode: str) -> Any: ...
    def unlink(self, missing_ok: bool = False) -> None: ...
    def replace(self, target: Any) -> Any: ...


def write_whole(file: AnyPath, content: str | bytes, folder: AnyPath | None = None) -> None:
    """Writes a file that appears whole or not at all; its folder is made where there is none.

    Args:
        content: text is written as UTF-8; bytes that `read_text` could not read as such are put back.
        folder: where to write it until it is whole, on the same disk; else beside its place.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    encoded = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    with whole(file, folder) as partial:
        partial.write(encoded)


@contextmanager
def whole(file: AnyPath, folder: AnyPath | None = None) -> Iterator[IO[bytes]]:
    """Yields a file to write to, which has its name when the block has ended, and is gone when that failed."""
    unfinished = partial(file, folder)
    try:
        with unfinished.open("wb") as content:
            yield content
        unfinished.replace(file)
    except BaseException:
        with suppress(OSError):  # Report the first error, not that clearing up failed too.
            unfinished.unlink(missing_ok=True)
        raise


def partial(file: AnyPath, folder: Any | None = None) -> Any:
    """Where this process writes what will be `file`: no other one, of no other machine, writes there."""
    name = f"{file.name}.{socket.gethostname()}.{os.getpid()}{PARTIAL}"
    return folder / name if folder is not None else file.with_name(name)


def read_text(file: Path) -> str:
    """What `write_whole` wrote: bytes that are not UTF-8 and line ends are kept, a patch has to be exact."""
    return file.read_bytes().decode("utf-8", "surrogateescape")


@contextmanager
def locked(
    file: Path, *, wait: bool = True, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Holds `file` as a lock between processes; the system releases it however the holder ends.

    Args:
        waiting: called where another process holds it, before waiting for it.

    Raises:
        BlockingIOError: another process, which `holder` names, holds it and `wait` is false.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def held(file: Path) -> bool:
    """Whether a process holds `file` as a lock."""
    if not file.exists():
        return False
    with file.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def holder(file: Path) -> int:
    """The process that holds `file` as a lock, or has held it last; 0 where it has just taken it."""
    return int(file.read_text() or 0)


def as_lines(*records: dict[str, Any], allow_nan: bool = True) -> str:
    """Records as lines of JSON.

    Args:
        allow_nan: whether a figure may be NaN or infinite, which not every reader of JSON takes.
    """
    return "".join(json.dumps(record, allow_nan=allow_nan) + "\n" for record in records)


def append(file: Path, lines: str, *, to_disk: bool = False) -> None:
    """Appends whole lines in one write: who reads meanwhile sees them whole, or an unfinished last one.

    Args:
        to_disk: they are on the disk when this returns.
    """
    with file.open("ab") as content:
        content.write(lines.encode())
        if to_disk:
            content.flush()
            os.fsync(content.fileno())


def read_lines(file: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Every complete line of JSON from the byte `offset` on, each with the offset of the next; none without a file."""
    if not file.exists():
        return
    with file.open("rb") as content:
        content.seek(offset)
        for line in content:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            if line.strip(b"\0 \n"):  # A machine that lost power may have left zeros.
                yield json.loads(line), offset


def cut_torn_line(file: Path) -> None:
    """Cuts off a last line that a killed process left unfinished."""
    if not file.exists() or file.stat().st_size == 0:
        return
    with file.open("rb") as content:
        content.seek(-1, os.SEEK_END)
        if content.read() == b"\n":
            return
    os.truncate(file, file.read_bytes().rfind(b"\n") + 1)
