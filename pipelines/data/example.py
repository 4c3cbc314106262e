"""What sources and builds say to each other: requests, listings, examples, what is loaded and what is rejected."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.config import Dataset
from pipelines.data import keys

Reason = tuple[str, str]  # a code, and advice


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
    numbered: bool = False  # whether evaluation finds its images again by the number in their keys


@dataclass(frozen=True)
class Folder:
    """A location of a source: digests of its files and reasons of what is unfit, by path inside."""

    path: str
    digests: Mapping[str, str]
    unfit: Mapping[str, Reason] = field(default_factory=dict)

    def refusal(self, name: str) -> Reason | None:
        """Why a path inside is unfit, itself or by a folder that it is in."""
        path = ""
        for part in name.split("/"):
            path = f"{path}/{part}" if path else part
            if path in self.unfit:
                return self.unfit[path]
        return None


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


@dataclass(frozen=True)
class Example:
    """One example to be: where its bytes lie, and what its source needs to load it."""

    split: str
    key: str  # unique in the split
    file: str  # path of the image
    name: str  # path of the image inside its folder
    content: str  # digest over everything the record is made from
    own: Any = None  # a value that JSON can hold and only the source reads
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 of what a worker reads whole


def of_class(
    split: str, name: str, file: str, sha256: str, label: str, numbers: Mapping[str, int]
) -> Example:
    """An image of one class, which is `own` by number and name.

    Args:
        numbers: of the classes, by name.
    """
    return Example(
        split=split,
        key=name,
        file=file,
        name=name,
        content=keys.joint_digest(sha256, label),
        own={"label": numbers[label], "text": label},
        files={file: sha256},
    )


def of_pair(
    split: str, stem: str, images: Folder, image: str, seconds: Folder, second: str, kind: str
) -> Example:
    """An image and a second file of the same stem, whose path is `own` under its kind."""
    image_file = f"{images.path}/{image}"
    second_file = f"{seconds.path}/{second}"
    image_digest = images.digests[image]
    second_digest = seconds.digests[second]
    return Example(
        split=split,
        key=stem,
        file=image_file,
        name=image,
        content=keys.joint_digest(image_digest, second_digest),
        own={kind: second_file},
        files={image_file: image_digest, second_file: second_digest},
    )


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


@dataclass
class Loaded:
    """What a source says of one example."""

    record: dict[str, Any]  # what the task encodes, beside the image
    rejects: list[tuple[str, Rejected]] = field(default_factory=list)  # objects left out, by name
    clipped: int = 0  # boxes that were cut at the edge of the image
    pixels: Mapping[str, int] = field(default_factory=dict)  # by class, of a mask of classes


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
