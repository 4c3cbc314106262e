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
LONGEST_OUTLINE = 2_000_000  # pixels; the library takes some 40 bytes for each, and does not look whether it got them
FARTHEST = 1e6  # pixels from the image's corner
DIGITS = (
    12  # five bits each; a compressed run length with more would count more pixels than there are
)
PALETTE = b"\x00\x00\x00\x01\x01\x01"  # two entries: the pixels decode to 0 and 1
SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What the six bits of a digit of COCO's compressed run lengths mean.
VALUE = 0x1F
SIGN = 0x10  # in the last digit of a number
CONTINUED = 0x20


def encode_object(segmentation: Any, height: int, width: int) -> bytes:
    """A PNG whose pixels decode to 0 and 1, from polygons, run lengths as a list, or compressed ones.

    One bit a pixel under a palette: an eighth of the bytes to filter and deflate, and the same pixels to every decoder.

    Raises:
        Rejected: the segmentation is none of these, does not fit the image, or covers no pixel.
    """
    return _encoded(
        _run_lengths(segmentation, height, width),
        height,
        width,
    )


def encode_pixels(pixels: np.ndarray) -> bytes:
    """The same from the pixels that belong to an object.

    Raises:
        Rejected: there are none.
    """
    height, width = pixels.shape
    return _encoded(
        rle.encode(np.asfortranarray(pixels, np.uint8)),
        height,
        width,
    )


def _encoded(encoded: dict[str, Any], height: int, width: int) -> bytes:
    left, top, box_width, box_height = (int(side) for side in rle.toBbox(encoded))
    if box_width <= 0 or box_height <= 0:
        raise Rejected("mask_empty", "the mask covers no pixel of the image")
    first_byte = left // 8
    columns = _columns(
        encoded["counts"],
        height,
        8 * first_byte,
        left + box_width,
    )
    packed = np.packbits(columns[top : top + box_height], axis=1)
    # The first byte of a row names its filter: none.
    rows = np.zeros((height, 1 + (width + 7) // 8), np.uint8)
    start = 1 + first_byte
    end = start + packed.shape[1]
    rows[top : top + box_height, start:end] = packed
    return _png(rows, width, depth=1, palette=PALETTE)


def _columns(counts: bytes, height: int, first: int, end: int) -> np.ndarray:
    """Pixels of some columns, uint8 of shape [height, columns], from the library's run lengths: it decodes whole images only."""
    runs = _summed(_numbers(counts))
    edges = np.cumsum(runs)
    edges = np.clip(
        edges,
        first * height,
        end * height,
    )
    lengths = np.diff(edges, prepend=first * height)
    values = np.arange(len(edges), dtype=np.uint8) & 1  # Runs of 0 and of 1 take turns.
    pixels = np.repeat(values, lengths)
    return pixels.reshape(end - first, height).T


def _numbers(counts: bytes) -> np.ndarray:
    """The numbers in COCO's compressed run lengths (`rleFrString` of its library), as int64.

    A number is a series of digits of five bits, the lowest first. A digit is a character, counted from "0"; its sixth
    bit says that another one follows, and the highest bit of the last one is the number's sign.

    Raises:
        Rejected: a number is longer than any run, or the last one has no end.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    if not len(digits):
        return digits
    ends = np.flatnonzero(digits & CONTINUED == 0)
    whole = len(ends) and ends[-1] == len(digits) - 1
    if not whole:
        ends = np.append(ends, len(digits) - 1)
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    if lengths.max() > DIGITS:
        advice = f"a compressed run length has more than {DIGITS} digits"
        raise Rejected("mask_malformed", advice)
    if not whole:
        raise Rejected("mask_malformed", "the last compressed run length has no end")
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    magnitudes = np.add.reduceat((digits & VALUE) << shifts, starts)
    signs = (digits[ends] & SIGN) << (shifts[ends] + 1)
    return magnitudes - signs


def _summed(numbers: np.ndarray) -> np.ndarray:
    """Run lengths from their numbers: from the fourth on, these are differences from the last but one."""
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    return runs


def _png(rows: np.ndarray, width: int, *, depth: int, palette: bytes = b"") -> bytes:
    """Rows with their filter bytes as PNG: of grey, or of a palette's entries."""
    colour = 3 if palette else 0
    parts = [
        SIGNATURE,
        _chunk(
            b"IHDR",
            struct.pack(
                ">IIBBBBB",
                width,
                len(rows),
                depth,
                colour,
                0,
                0,
                0,
            ),
        ),
        _chunk(b"PLTE", palette) if palette else b"",
        _chunk(b"IDAT", zlib.compress(rows.data, 1)),
        _chunk(b"IEND", b""),
    ]
    return b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    length = struct.pack(">I", len(content))
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return length + kind + content + struct.pack(">I", checksum)


def _run_lengths(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """The library's run lengths of a segmentation."""
    try:
        if isinstance(segmentation, dict):
            return _checked(segmentation, height, width)
        polygons = [_coordinates(polygon) for polygon in segmentation]
    except Rejected:
        raise
    except Exception as error:
        advice = f"polygons or run lengths cannot be read: {error!r}"
        raise Rejected("mask_malformed", advice) from None
    _check_polygons(polygons)
    return rle.merge(rle.frPyObjects(polygons, height, width))


def _coordinates(polygon: Any) -> list[float]:
    return [float(number) for number in polygon]


def _check_polygons(polygons: list[list[float]]) -> None:
    if not polygons or any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise Rejected("mask_malformed", "a polygon needs three points or more, as x, y, x, y, …")
    outline = 0.0
    for polygon in polygons:
        if not np.isfinite(polygon).all() or np.abs(polygon).max() >= FARTHEST:
            advice = "a polygon has a coordinate that is not a number, or far outside the image"
            raise Rejected("mask_malformed", advice)
        outline += _outline(polygon)
    if outline > LONGEST_OUTLINE:
        raise Rejected(
            "mask_malformed",
            f"the outline is longer than {LONGEST_OUTLINE} pixels; the coordinates are not those of this image",
        )


def _outline(polygon: list[float]) -> float:
    """How many pixels a polygon's edges pass through, at most."""
    corners = np.reshape(polygon, (-1, 2))
    edges = corners - np.roll(corners, 1, axis=0)
    return float(np.abs(edges).max(axis=1).sum())


def _checked(segmentation: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Run lengths of a user's, which add up: where they do not, the library writes outside its memory."""
    size = segmentation["size"]
    if list(size) != [height, width]:
        advice = f"run lengths are for {size}, the image is {[height, width]}"
        raise Rejected("mask_size", advice)
    counts = segmentation["counts"]
    if isinstance(counts, list):
        _check_runs(counts, height * width)
        return _compressed(counts, height, width)
    content = counts.encode("ascii")
    numbers = _numbers(content)
    # No run is longer than the image. Without those that are, no sum is too large for its 64 bits.
    if np.any(np.abs(numbers) > height * width):
        raise _not_adding_up(height * width)
    runs = _summed(numbers).tolist()
    _check_runs(runs, height * width)
    if 0 in runs[1:]:
        return _compressed(runs, height, width)
    return {"size": [height, width], "counts": content}


def _check_runs(counts: list[Any], pixels: int) -> None:
    for count in counts:
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise _not_adding_up(pixels)
    if sum(counts) != pixels:
        raise _not_adding_up(pixels)


def _not_adding_up(pixels: int) -> Rejected:
    advice = f"run lengths must be whole numbers that add up to the image's {pixels} pixels"
    return Rejected("mask_malformed", advice)


def _compressed(runs: list[int], height: int, width: int) -> dict[str, Any]:
    lengths = {"size": [height, width], "counts": _joined(runs)}
    return rle.frPyObjects(lengths, height, width)


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
    height, width = classes.shape
    rows = np.zeros((height, 1 + width), np.uint8)
    rows[:, 1:] = classes
    return _png(rows, width, depth=8)


def read_classes(content: bytes) -> np.ndarray:
    """Classes of a mask image; of a palette, the indices.

    Raises:
        Rejected: it is no image, or has no one class of 8 bits per pixel.
    """
    picture = _opened(content)
    _check_mode(picture, ("L", "P", "1"), "a mask has one 8-bit channel")
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
    _check_mode(picture, ("L", "P", "1", "RGB", "RGBA", "LA"), "a mask has one 8-bit channel")
    if picture.mode != "L":
        picture = picture.convert("RGB").convert("L")
    return np.asarray(picture, np.uint8)


def read_segments(content: bytes) -> np.ndarray:
    """Segment ids of a panoptic PNG: red + 256 green + 65536 blue.

    Raises:
        Rejected: it is no image, or has no three channels.
    """
    picture = _opened(content)
    _check_mode(picture, ("RGB",), "a panoptic PNG has three 8-bit channels")
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


def _check_mode(picture: Image.Image, modes: Sequence[str], rule: str) -> None:
    if picture.mode not in modes:
        raise Rejected("mask_mode", f"{rule}, this one has mode {picture.mode}")


def pixels(classes: np.ndarray, labels: Sequence[Any]) -> dict[str, int]:
    """How many pixels each class has, by its label; ignored ones are not counted.

    Raises:
        Rejected: a value is no class.
    """
    counts = np.bincount(classes.ravel(), minlength=256)
    values = [int(value) for value in np.flatnonzero(counts)]
    unknown = [value for value in values if value >= len(labels) and value != IGNORED]
    if unknown:
        advice = "name them in dataset.labels, or map them with dataset.remap (255 is ignored)"
        raise Rejected("unknown_class", f"pixel values {unknown} are no classes; {advice}")
    return {str(label): int(count) for label, count in zip(labels, counts, strict=False) if count}
