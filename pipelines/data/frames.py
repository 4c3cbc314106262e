"""Frames of a clip: their order, what they must have in common, and those of an animated picture."""

import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image as Pillow
from PIL import ImageSequence

from pipelines.data import images
from pipelines.data.example import Rejected
from pipelines.data.images import Image

MOST_BYTES = 2**31  # of a clip: a record of a TFRecord file is read into memory whole
FEWEST = 2


def in_order(names: Iterable[str]) -> list[str]:
    """Names of frames as they follow each other: numbers in them count as numbers, 2 before 10."""
    return sorted(names, key=_numbers_and_words)


def _numbers_and_words(name: str) -> tuple[list[Any], str]:
    parts = re.split(r"(\d+)", name)
    # Every second part is a number; names that differ in zeros before it stay apart.
    ranked: list[Any] = []
    for place, part in enumerate(parts):
        is_number = place % 2
        ranked.append(int(part) if is_number else part)
    return ranked, name


def pictures(record: Mapping[str, Any]) -> list[bytes]:
    """The encoded pictures of a record: the frames of a clip, or its one image."""
    return record.get("frames") or [record["image"]]


def digest(contents: Iterable[bytes]) -> str:
    """SHA-256 of pictures, one behind the other; of a single one its own."""
    sha256 = hashlib.sha256()
    for content in contents:
        sha256.update(content)
    return sha256.hexdigest()


def check(frames: Sequence[Image]) -> None:
    """Checks that frames can be stacked.

    Raises:
        Rejected: they differ in size, or are too many for a record.
    """
    first = _size(frames[0])
    total = 0
    for number, frame in enumerate(frames, start=1):
        total += len(frame.content)
        size = _size(frame)
        if size != first:
            sizes = f"{size}, the first {first}"
            advice = f"frame {number} has {sizes} pixels; give all frames of a clip one size"
            raise Rejected("frame_size", advice)
    if total >= MOST_BYTES:
        says = f"{len(frames)} frames have {total} bytes"
        advice = f"{says}; divide the clip, or make its frames smaller"
        raise Rejected("clip_too_large", advice)


def _size(frame: Image) -> str:
    return f"{frame.width}x{frame.height}"


def check_count(frames: Sequence[Any]) -> None:
    """Checks that there is something to follow.

    Raises:
        Rejected: it is a single picture.
    """
    if len(frames) < FEWEST:
        advice = "it has one frame; a clip is a folder of frames, or an animated GIF, WebP or PNG"
        raise Rejected("clip_of_one_frame", advice)


def first_of(content: bytes) -> bytes:
    """The first frame of an animated picture as PNG.

    Raises:
        Rejected: the file is no whole picture.
    """
    return _unpacked(content, limit=1)[0].content


def all_of(content: bytes) -> list[Image]:
    """The frames of an animated picture as PNG, each as it is to be seen.

    Raises:
        Rejected: the file is no whole picture.
    """
    return _unpacked(content, limit=None)


def _unpacked(content: bytes, limit: int | None) -> list[Image]:
    if not content:
        raise Rejected("image_empty", "the file has zero bytes; fetch it again")
    frames = []
    try:
        with Pillow.open(io.BytesIO(content)) as film:
            for picture in ImageSequence.Iterator(film):
                frames.append(images.written(picture, "png"))
                if len(frames) == limit:
                    break
    except Pillow.DecompressionBombError as error:
        raise Rejected("image_too_large", str(error)) from None
    except Exception as error:
        advice = f"its frames cannot be read ({error}); write the file anew, or remove it"
        raise Rejected("clip_unreadable", advice) from None
    return frames
