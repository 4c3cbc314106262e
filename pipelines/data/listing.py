"""What a source states of itself, what it is asked to read, and what it lists."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.config import Dataset
from pipelines.data.example import Example, Folder, Reason, Reject


@dataclass(frozen=True)
class Facts:
    """What holds for a source, whatever data set it reads."""

    tasks: tuple[str, ...]  # those whose records it can fill
    required: tuple[str, ...]  # settings of a data set that it cannot do without
    optional: tuple[str, ...] = ()  # further locations that it reads where they are given
    several: tuple[str, ...] = ()  # locations that may be lists of folders
    patterns: bool = False  # whether a location may be a pattern
    adopted: bool = False  # whether its files become shards as they are: linked, not rewritten
    object_masks: bool = False  # whether it draws masks of objects
    pixels: bool = False  # whether its pictures come as pixels, and are encoded here
    animations: bool = False  # whether it takes frames out of animated pictures, and encodes them
    numbered: bool = False  # whether evaluation finds its images again by the number in their keys


def no_features(serialized: bytes) -> dict[str, list[Any]]:
    """Stands for a parser where no records are read."""
    return {}


@dataclass(frozen=True)
class Request:
    """What a source is asked to read: paths, and digests of files, by field and split."""

    dataset: Dataset
    places: Mapping[str, Mapping[str, str]]
    digests: Mapping[str, Mapping[str, Mapping[str, str]]]  # empty on workers
    shared: Mapping[str, Any] = field(default_factory=dict)  # what `listing` found out for `load`
    # Features of a serialized tf.train.Example.
    parse: Callable[[bytes], dict[str, list[Any]]] = no_features
    unfit: Mapping[str, Mapping[str, Mapping[str, Reason]]] = field(default_factory=dict)

    def folder(self, name: str, split: str) -> Folder:
        """What lies at a location; `name` is a field, or `images 2`."""
        digests = self.digests.get(name, {}).get(split, {})
        unfit = self.unfit.get(name, {}).get(split, {})
        return Folder(
            self.places[name][split],
            digests,
            unfit,
        )


@dataclass
class Tally:
    """What a source met while it listed, counted where it reads and not where it yields.

    It is whole once all `items` of the listing were taken.
    """

    examples: int = 0
    objects: int | None = None  # None: they are read on workers
    ballast: list[str] = field(default_factory=list)  # files that are no images by name


@dataclass(frozen=True)
class Listing:
    """Class names in the order of their integers, and the examples in any order."""

    labels: tuple[str, ...]
    has_masks: bool
    items: Iterable[Example | Reject]
    shared: Mapping[str, Any] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
