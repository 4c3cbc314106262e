"""What is known of a data set beside its manifest: how its files looked when they were whole, and how far its records were checked.

It lies in a separate folder whose name starts with a dot, so that `train-*` and `*.tfrecord*` mean shards and nothing else.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field

from etils import epath

from pipelines.data import files
from pipelines.system import durable

BESIDE = ".shards"
CHECKS = "checks.json"
UNDECODABLE = "undecodable.json"
LEVELS = ("none", "sample", "full")

Stamp = list[int]


@dataclass
class Checks:
    """How far a data set was checked.

    Attributes:
        level: of `LEVELS`: what was read back through Model Garden's decoder and parser.
        stamps: of each file when its content was last known to be right.
        decoded: SHA-256 of the shards of which it is certain that TensorFlow decodes every image.
    """

    level: str = "none"
    stamps: dict[str, Stamp] = field(default_factory=dict)
    decoded: list[str] = field(default_factory=list)


def place(folder: epath.Path, name: str) -> epath.Path:
    """Where a file that belongs to a data set, and is no shard, lies."""
    return folder / BESIDE / name


def read(folder: epath.Path) -> Checks:
    """What is known of a data set; nothing where nothing was noted."""
    file = place(folder, CHECKS)
    return Checks(**json.loads(file.read_text())) if file.exists() else Checks()


def write(folder: epath.Path, checks: Checks) -> None:
    """Notes what is known; in a folder that cannot be written, it will be found out again."""
    with contextlib.suppress(PermissionError):
        _put(folder, CHECKS, asdict(checks))


def stamp(file: epath.Path) -> Stamp:
    """What changes when a file does: its size and times, in nanoseconds on disk.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if files.is_remote(str(file)):
        status = file.stat()
        return [status.length, int(status.mtime or 0)]
    local = os.stat(file)
    # The second time cannot be set back: it tells a change that keeps the first.
    return [local.st_size, local.st_mtime_ns, local.st_ctime_ns]


def undecodable(folder: epath.Path) -> dict[str, str]:
    """Images that TensorFlow could not decode: SHA-256 to its reason."""
    file = place(folder, UNDECODABLE)
    return json.loads(file.read_text()) if file.exists() else {}


def add_undecodable(folder: epath.Path, reasons: dict[str, str]) -> None:
    """Notes images that TensorFlow cannot decode, for whoever writes these shards now or later."""
    _put(
        folder,
        UNDECODABLE,
        dict(sorted({**undecodable(folder), **reasons}.items())),
    )


def _put(folder: epath.Path, name: str, document: dict) -> None:
    durable.write_whole(place(folder, name), json.dumps(document))
