"""Sources: each lists its examples without reading images, and later loads one at a time on a worker.

The interface of a source module:

    listing(request) -> Listing                                   in the launching process, streaming
    load(example, image: Image, request: Request) -> record       on a worker; raises Rejected
"""

import hashlib
import importlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pipelines.config import Dataset
from pipelines.data.content import ALL

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Request:
    """What a source is asked to read: paths and digests of files, by field and split."""

    dataset: Dataset
    places: Mapping[str, Mapping[str, str]]
    digests: Mapping[str, Mapping[str, Mapping[str, str]]]


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


def inside(folder: str, name: str) -> str | None:
    """Path of a file of a folder; None where it leaves the folder, by its name or by a link."""
    path = os.path.join(folder, name)
    root = os.path.realpath(folder)
    return path if os.path.realpath(path).startswith(root + os.sep) else None


def digest(*parts: str) -> str:
    """Digest over parts."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
