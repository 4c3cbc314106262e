"""One example on its way to a record: where it lies, what is loaded of it, or why it is rejected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.data import keys

Reason = tuple[str, str]  # a code, and advice


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
    own = {"label": numbers[label], "text": label}
    digest = keys.joint_digest(sha256, label)
    return Example(
        split,
        name,
        file,
        name,
        digest,
        own,
        {file: sha256},
    )


def of_pair(
    split: str, stem: str, images: Folder, image: str, seconds: Folder, second: str, kind: str
) -> Example:
    """An image and a second file of the same stem, whose path is `own` under its kind."""
    image_file = f"{images.path}/{image}"
    second_file = f"{seconds.path}/{second}"
    digests = images.digests[image], seconds.digests[second]
    files = dict(zip((image_file, second_file), digests, strict=True))
    joint = keys.joint_digest(*digests)
    return Example(
        split,
        stem,
        image_file,
        image,
        joint,
        {kind: second_file},
        files,
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
    frames: Sequence[Any] = ()  # of a clip: each an `images.Image`, the first that of the example
