"""Pictures without annotations, to be looked at by a model: a file, a folder, a pattern or a bucket."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.config import absolute
from pipelines.data import files, folders, images, lookup
from pipelines.data.example import Rejected
from pipelines.data.images import Image
from pipelines.data.listing import Tally
from pipelines.outside import printable, redacted
from pipelines.usage import UsageError

# What no decoder of TensorFlow's reads becomes PNG; all else stays as it is unless the run's data set says otherwise.
READABLE = {"gif": "png", "webp": "png", "tiff": "png"}


@dataclass(frozen=True)
class Found:
    """A file that is to be a picture.

    Attributes:
        name: its path inside the place that was named.
        trouble: why it cannot be read, where that is known from its folder.
    """

    name: str
    path: str
    trouble: str = ""


def found(place: str) -> list[Found]:
    """The files at a place that may be pictures, sorted by name.

    Files that are no pictures by their name (README.txt, Thumbs.db) are left out of a folder.

    Raises:
        UsageError: there is nothing there, or no file that may be a picture.
    """
    place = place.rstrip("/") if files.is_remote(place) else absolute(place)
    if files.is_remote(place):
        files.check("images", place)
    contents = folders.contents(place, ())
    listed = []
    for name in lookup.without_ballast(contents.files, Tally()):
        path = f"{place}/{name}" if files.is_remote(place) else folders.path_of(place, name)
        listed.append(Found(name or place.rpartition("/")[2], path.rstrip("/")))
    for name in lookup.without_ballast(contents.unfit, Tally()):
        advice = contents.unfit[name][1]
        listed.append(Found(name, name, advice))
    if not listed:
        raise UsageError(f"images: {redacted(printable(place, 200))}: there is no picture in it")
    return sorted(listed, key=lambda file: file.name)


def read(file: Found, convert: dict[str, str] | None) -> Image:
    """The bytes of a picture, JPEG, PNG or BMP.

    Args:
        convert: how the run's data set treats pictures, as `dataset.convert`.

    Raises:
        Rejected: it is no picture, or cannot be read.
    """
    if file.trouble:
        raise Rejected("image_unreadable", file.trouble)
    try:
        content = files.read(file.path)
    except OSError as error:
        raise Rejected(
            "image_unreadable",
            error.strerror or "it cannot be read",
        ) from None
    return images.read(content, {**READABLE, **(convert or {})})


def chunks(listed: list[Found], size: int) -> Iterator[list[Found]]:
    """The files in groups of at most `size`."""
    for start in range(0, len(listed), size):
        yield listed[start : start + size]
