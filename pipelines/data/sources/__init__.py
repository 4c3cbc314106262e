"""Sources: each lists its examples without reading images, and later loads one at a time on a worker.

The interface of a source module:

    TASKS                                                         tasks whose records it can fill
    listing(request) -> Listing                                   in the launching process, streaming
    load(example, image: Image, request: Request) -> record       on a worker; raises Rejected
    content(example, request) -> bytes                            optional: the image, where it is no file of its own
"""

import functools
import hashlib
import importlib
import math
import os
import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from pipelines.config import Dataset
from pipelines.data import files
from pipelines.data.content import ALL
from pipelines.usage import UsageError


@dataclass(frozen=True)
class Request:
    """What a source is asked to read: paths, and digests of files, by field and split."""

    dataset: Dataset
    places: Mapping[str, Mapping[str, str]]
    digests: Mapping[str, Mapping[str, Mapping[str, str]]]  # empty on workers
    shared: Mapping[str, Any] = field(default_factory=dict)  # what `listing` found out for `load`
    parse: Callable[[bytes], dict[str, list[Any]]] = lambda serialized: {}  # the features of a serialized tf.train.Example


@dataclass(frozen=True)
class Example:
    """One example to be: where its bytes lie, and what else its source needs to load it (values that JSON can hold)."""

    split: str
    key: str  # unique in the split
    file: str  # path of the image
    name: str  # path of the image inside its folder
    content: str  # digest over everything the record is made from
    more: dict[str, Any]


@dataclass(frozen=True, order=True)
class Reject:
    """Something that was left out, why, and what to do about it."""

    split: str
    file: str
    record: str
    code: str
    advice: str
    whole: bool = True  # an example, rather than one of its objects
    objects: int = 0  # those that an example takes with it


class Rejected(Exception):
    """Raised on a worker by what cannot become a record."""

    def __init__(self, code: str, advice: str) -> None:
        super().__init__(code, advice)
        self.code = code
        self.advice = advice


@dataclass(frozen=True)
class Listing:
    """Class names in the order of their integers, and the examples in any order."""

    labels: tuple[str, ...]
    has_masks: bool
    items: Iterable[Example | Reject]
    shared: Mapping[str, Any] = field(default_factory=dict)


def load(name: str) -> ModuleType:
    """Imports one source."""
    return importlib.import_module(f"pipelines.data.sources.{name}")


def position(key: str) -> int:
    """A stable hash of a key, 63 bits: decides the split, the shard and the order inside it."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8], "big") >> 1


def numeric(key: str) -> int:
    """A number for `image/source_id`: the key itself where it is one, else 52 bits of its hash."""
    return int(key) if key.isascii() and key.isdigit() and len(key) < 16 else position(key) >> 11


def split_of(split: str, key: str, dataset: Dataset) -> str:
    """The split as given, or one chosen by a hash of the key where the source is not divided."""
    if split != ALL:
        return split
    # Other bits than those that choose the shard.
    return "validation" if position(f"split {key}") < dataset.validation_fraction * 2**63 else "train"


@functools.lru_cache(maxsize=64)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def inside(folder: str, name: str) -> str | None:
    """Path of a file of a folder; None where it leaves the folder, by its name or by a link."""
    if files.is_remote(folder):
        plain_name = posixpath.normpath(name)
        return None if plain_name.startswith(("/", "..")) else f"{folder}/{plain_name}"
    path = os.path.join(folder, name)
    plain = not os.path.isabs(name) and ".." not in name.split("/")
    if plain and "/" not in name and not os.path.islink(path):
        return path
    return path if os.path.realpath(path).startswith(_real(folder) + os.sep) else None


ESCAPES = ("path_escapes", "the file lies outside its folder, by its name or by a link; copy it inside")
NOT_TEXT = ("file_name_not_utf8", "rename the file, and its entry if it has one, to UTF-8")


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def folders_of(request: Request, field: str, given: str) -> list[tuple[str, Mapping[str, str]]]:
    """The folders of a field for a split's annotations, in their order, each with the digests of its files.

    Raises:
        UsageError: the field and the annotations name different splits.
    """
    split = given if given in request.places[field] else ALL
    if split not in request.places[field]:
        raise UsageError(f"dataset.{field} has {', '.join(request.places[field])}, dataset.annotations has {given or 'one file'}; give both the same splits")
    fields = [name for name, by_split in request.places.items() if name.split()[0] == field and split in by_split]
    return [(request.places[name][split], request.digests[name][split]) for name in fields]


def find(name: str, folders: Iterable[tuple[str, Mapping[str, str]]], kind: str = "image") -> tuple[str, str]:
    """Path and digest of a file that an annotation names, in the first folder that has it.

    Raises:
        Rejected: no folder has it, it lies outside, or two folders have different files of that name.
    """
    if not is_text(name):
        raise Rejected(*NOT_TEXT)
    places = {folder: inside(folder, name) for folder, _ in folders}
    if not any(places.values()):
        raise Rejected(*ESCAPES)
    found = [(path, digest) for folder, files in folders if (path := places[folder]) and (digest := files.get(name) or files.get(_plain(path, folder)))]
    if not found:
        raise Rejected(f"{kind}_missing", f"the file is {'in none of the folders' if len(places) > 1 else 'not there'}; add it or remove its entry")
    if len({digest for _, digest in found}) > 1:
        raise Rejected(f"{kind}_ambiguous", f"different files have this name: {' and '.join(path for path, _ in found)}; rename or remove one")
    return found[0]


def _plain(path: str, folder: str) -> str:
    """A file's path inside its folder, where it was written another way: ./0001.jpg."""
    return path.removeprefix(f"{folder}/") if files.is_remote(folder) else os.path.relpath(os.path.realpath(path), _real(folder))


def digest(*parts: str) -> str:
    """Digest over parts."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def clipped(box: Any, height: int, width: int) -> tuple[tuple[float, float, float, float], bool]:
    """(top, left, bottom, right) of a box [x, y, width, height] inside an image, and whether it had to be cut.

    Raises:
        Rejected: it is no box, has no area, or lies outside.
    """
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        raise Rejected("box_malformed", f"box {box!r} is not [x, y, width, height] in pixels; correct it, or remove the object")
    left, top, box_width, box_height = (float(value) for value in box)
    if box_width <= 0 or box_height <= 0:
        raise Rejected("box_empty", f"box {box} has no area; correct it, or remove the object")
    bottom, right = top + box_height, left + box_width
    inner = (max(0.0, top), max(0.0, left), min(float(height), bottom), min(float(width), right))
    if inner[0] >= inner[2] or inner[1] >= inner[3]:
        raise Rejected("box_outside", f"box {box} lies outside the image of {width}x{height}; correct it, or remove the object")
    # As float32 and as a fraction, the way it is stored, the box must still have an area.
    if (inner[2] - inner[0]) / height < 1e-6 or (inner[3] - inner[1]) / width < 1e-6:
        raise Rejected("box_empty", f"box {box} has no area inside the image; correct it, or remove the object")
    return inner, inner != (top, left, bottom, right)
