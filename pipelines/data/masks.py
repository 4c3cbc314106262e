"""Masks as pixels and as PNG: polygons, run lengths, class maps."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as rle

from pipelines.data.example import Rejected

IGNORED = 255  # the value of pixels that training leaves out
_HEAD = b"\x89PNG\r\n\x1a\n"
LONGEST_OUTLINE = 2_000_000  # pixels; the library takes some 40 bytes for each, and does not look whether it got them
DIGITS = 12  # of a compressed run length, five bits each: more are more pixels than there are
_PALETTE = b"\x00\x00\x00\x01\x01\x01"  # two entries: the pixels decode to 0 and 1


def encode_object(segmentation: Any, height: int, width: int) -> bytes:
    """A PNG whose pixels decode to 0 and 1, from polygons, run lengths as a list, or compressed ones.

    One bit a pixel under a palette: an eighth of the bytes to filter and deflate, and the same pixels to every decoder.

    Raises:
        Rejected: the segmentation is none of these, does not fit the image, or covers no pixel.
    """
    return _encoded(_run_lengths(segmentation, height, width), height, width)


def encode_pixels(pixels: np.ndarray) -> bytes:
    """The same from the pixels that belong to an object.

    Raises:
        Rejected: there are none.
    """
    return _encoded(rle.encode(np.asfortranarray(pixels, np.uint8)), *pixels.shape)


def _encoded(encoded: dict[str, Any], height: int, width: int) -> bytes:
    left, top, box_width, box_height = (int(value) for value in rle.toBbox(encoded))
    if box_width <= 0 or box_height <= 0:
        raise Rejected("mask_empty", "the mask covers no pixel of the image")
    rows = np.zeros(
        (height, 1 + (width + 7) // 8), np.uint8
    )  # the first byte of a row names its filter: none
    first = left // 8 * 8
    pixels = _columns(encoded["counts"], height, first, left + box_width)[top : top + box_height]
    packed = np.packbits(pixels, axis=1)
    rows[top : top + box_height, 1 + first // 8 : 1 + first // 8 + packed.shape[1]] = packed
    return _png(rows, width, depth=1, palette=_PALETTE)


def _columns(counts: bytes, height: int, first: int, end: int) -> np.ndarray:
    """Pixels of some columns, uint8 of shape [height, columns], from the library's run lengths: it decodes whole images only."""
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(
        codes & 0x20 == 0
    )  # A number ends where no further five bits are announced.
    starts = np.append(0, ends[:-1] + 1)
    places = 5 * (np.arange(len(codes)) - np.repeat(starts, ends - starts + 1))
    runs = np.add.reduceat((codes & 0x1F) << places, starts) - (
        (codes[ends] & 0x10) << (places[ends] + 1)
    )
    runs[1::2], runs[2::2] = (
        np.cumsum(runs[1::2]),
        np.cumsum(runs[2::2]),
    )  # From the fourth on, differences from the last but one.
    edges = np.clip(np.cumsum(runs), first * height, end * height)
    return (
        np.repeat(np.arange(len(edges), dtype=np.uint8) & 1, np.diff(edges, prepend=first * height))
        .reshape(end - first, height)
        .T
    )


def _png(rows: np.ndarray, width: int, *, depth: int, palette: bytes = b"") -> bytes:
    """Rows with their filter bytes as PNG: of grey, or of a palette's entries."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, 3 if palette else 0, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        (b"PLTE", palette),
        (b"IDAT", zlib.compress(rows, 1)),
        (b"IEND", b""),
    ]
    return _HEAD + b"".join(
        _chunk(kind, content) for kind, content in parts if content or kind == b"IEND"
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
    )


def _run_lengths(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    try:
        if isinstance(segmentation, dict):
            if list(segmentation["size"]) != [height, width]:
                raise Rejected(
                    "mask_size",
                    f"run lengths are for {segmentation['size']}, the image is {[height, width]}",
                )
            if isinstance(segmentation["counts"], list):
                _check_runs(segmentation["counts"], height * width)
                return rle.frPyObjects(
                    {"size": [height, width], "counts": _joined(segmentation["counts"])},
                    height,
                    width,
                )
            return _compressed(segmentation["counts"], height, width)
        polygons = [[float(number) for number in polygon] for polygon in segmentation]
    except Rejected:
        raise
    except Exception as error:
        raise Rejected(
            "mask_malformed", f"polygons or run lengths cannot be read: {error!r}"
        ) from None
    if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise Rejected("mask_malformed", "a polygon needs three points or more, as x, y, x, y, …")
    if not all(np.isfinite(polygon).all() and np.abs(polygon).max() < 1e6 for polygon in polygons):
        raise Rejected(
            "mask_malformed",
            "a polygon has a coordinate that is not a number, or far outside the image",
        )
    if sum(map(_outline, polygons)) > LONGEST_OUTLINE:
        raise Rejected(
            "mask_malformed",
            f"the outline is longer than {LONGEST_OUTLINE} pixels; the coordinates are not those of this image",
        )
    return rle.merge(rle.frPyObjects(polygons, height, width))


def _outline(polygon: list[float]) -> float:
    """How many pixels a polygon's edges pass through, at most."""
    corners = np.reshape(polygon, (-1, 2))
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())


def _check_runs(counts: list[int], pixels: int) -> None:
    if (
        any(not isinstance(count, int) or isinstance(count, bool) or count < 0 for count in counts)
        or sum(counts) != pixels
    ):
        raise Rejected(
            "mask_malformed",
            f"run lengths must be whole numbers that add up to the image's {pixels} pixels",
        )


def _compressed(counts: str, height: int, width: int) -> dict[str, Any]:
    """COCO's compressed run lengths, checked here: the library writes outside its memory where they do not add up."""
    content = counts.encode("ascii")
    runs: list[int] = []
    at = 0
    while at < len(content):
        value, shift, more = 0, 0, True
        while more:
            byte = content[at] - 48
            value |= (byte & 0x1F) << shift
            more = bool(byte & 0x20)
            at, shift = at + 1, shift + 5
            if shift > 5 * DIGITS:
                raise Rejected(
                    "mask_malformed", f"a compressed run length has more than {DIGITS} digits"
                )
            if not more and byte & 0x10:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    _check_runs(runs, height * width)
    if 0 in runs[1:]:
        return rle.frPyObjects({"size": [height, width], "counts": _joined(runs)}, height, width)
    return {"size": [height, width], "counts": content}


def _joined(counts: list[int]) -> list[int]:
    """The same runs with none that is empty behind the first: the library's box of a mask goes wrong over those."""
    joined = [0]
    for number, count in enumerate(counts):
        if count and number % 2 == len(joined) % 2:
            joined.append(count)
        else:
            joined[-1] += count
    return joined


def encode_classes(classes: np.ndarray) -> bytes:
    """A PNG of one 8-bit channel: a class per pixel."""
    rows = np.zeros((classes.shape[0], 1 + classes.shape[1]), np.uint8)
    rows[:, 1:] = classes
    return _png(rows, classes.shape[1], depth=8)


def read_classes(content: bytes) -> np.ndarray:
    """Classes of a mask image; of a palette, the indices.

    Raises:
        Rejected: it is no image, or has no one class of 8 bits per pixel.
    """
    picture = _opened(content)
    if picture.mode not in ("L", "P", "1"):
        raise Rejected(
            "mask_mode", f"a mask has one 8-bit channel, this one has mode {picture.mode}"
        )
    return np.asarray(picture, np.uint8)


def check_size(mask: np.ndarray, height: int, width: int) -> None:
    """Compares a mask with its image.

    Raises:
        Rejected: it has another size.
    """
    if mask.shape != (height, width):
        says = f"the mask is {mask.shape[1]}x{mask.shape[0]}, the image {width}x{height}"
        raise Rejected("mask_size", says)


def as_tensorflow_reads(content: bytes) -> np.ndarray:
    """Values of a mask in a record, as the official decoders take them: of one channel, a palette resolved to its grey.

    Raises:
        Rejected: it is no image, or has no 8 bits per channel.
    """
    picture = _opened(content)
    if picture.mode not in ("L", "P", "1", "RGB", "RGBA", "LA"):
        raise Rejected(
            "mask_mode", f"a mask has one 8-bit channel, this one has mode {picture.mode}"
        )
    return np.asarray(
        picture if picture.mode == "L" else picture.convert("RGB").convert("L"), np.uint8
    )


def pixels(classes: np.ndarray, labels: Sequence[Any]) -> dict[str, int]:
    """How many pixels each class has, by its label; ignored ones are not counted.

    Raises:
        Rejected: a value is no class.
    """
    counts = np.bincount(classes.ravel(), minlength=256)
    unknown = [
        int(value) for value in np.flatnonzero(counts) if value >= len(labels) and value != IGNORED
    ]
    if unknown:
        advice = "name them in dataset.labels, or map them with dataset.remap (255 is ignored)"
        raise Rejected("unknown_class", f"pixel values {unknown} are no classes; {advice}")
    return {str(label): int(count) for label, count in zip(labels, counts, strict=False) if count}


def read_segments(content: bytes) -> np.ndarray:
    """Segment ids of a panoptic PNG: red + 256 green + 65536 blue.

    Raises:
        Rejected: it is no image, or has no three channels.
    """
    picture = _opened(content)
    if picture.mode != "RGB":
        raise Rejected(
            "mask_mode",
            f"a panoptic PNG has three 8-bit channels, this one has mode {picture.mode}",
        )
    return np.asarray(picture, np.int32) @ np.array([1, 256, 65536], np.int32)


def _opened(content: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except UnidentifiedImageError:  # Its own words name an address in memory.
        says = "the bytes are no image; replace the mask, or remove it with its image"
        raise Rejected("mask_unreadable", says) from None
    except Exception as error:
        raise Rejected("mask_unreadable", f"the mask cannot be decoded: {error}") from None
    return picture
