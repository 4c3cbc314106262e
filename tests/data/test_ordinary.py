"""A picture that is called ordinary is one that TensorFlow decodes, whatever was done to it."""

import io
import itertools
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
import tensorflow as tf

from pipelines.data import images, ordinary
from pipelines.data.example import Rejected
from tests.data.test_bytes import checksummed
from tests.fuzzing import changed, examples, mutated

PIXELS = np.random.RandomState(0).randint(0, 255, (40, 52, 4), np.uint8)


def encoded(mode: str, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    alpha = mode in ("LA", "RGBA")
    picture = Image.fromarray(PIXELS if alpha else PIXELS[..., :3]).convert(mode)
    picture.save(file, kind, **how)
    return file.getvalue()


def remarks() -> PngImagePlugin.PngInfo:
    said = PngImagePlugin.PngInfo()
    said.add_text("Title", "a picture")
    said.add_itxt("Comment", "words", zip=True)
    said.add(b"gAMA", struct.pack(">I", 45455))
    return said


JPEGS = [
    encoded("RGB", "jpeg", dpi=(72, 72), comment=b"words"),
    encoded("RGB", "jpeg", subsampling=0, optimize=True),
    encoded("RGB", "jpeg", subsampling=1, restart_marker_blocks=2),
    encoded("RGB", "jpeg", keep_rgb=True),
    encoded("L", "jpeg"),
    encoded("RGB", "jpeg", progressive=True),
    encoded("L", "jpeg", progressive=True, restart_marker_blocks=3),
]
PNGS = [
    encoded("RGB", "png", pnginfo=remarks(), dpi=(72, 72)),
    *(encoded(mode, "png") for mode in ("L", "LA", "P", "RGBA")),
]
RARE = [
    encoded("CMYK", "jpeg"),
    encoded("1", "png"),
    encoded("RGB", "bmp"),
    encoded("P", "png", transparency=3),
]


def verdict(content: bytes) -> bool | None:
    """Whether a picture is called ordinary; None where it is rejected before."""
    try:
        return ordinary.is_ordinary(images.read(content))
    except Rejected:
        return None


def check(content: bytes) -> bool:
    """Has TensorFlow decode what is called ordinary; returns whether it is."""
    if not verdict(content):
        return False
    image = images.read(content)
    decoded = tf.io.decode_image(content, channels=3, expand_animations=False)
    assert decoded.shape == (image.height, image.width, 3)
    return True


@pytest.mark.parametrize("content", JPEGS + PNGS)
def test_the_common_layouts_are_ordinary(content: bytes) -> None:
    assert check(content)


@pytest.mark.parametrize("content", RARE)
def test_the_rare_ones_are_left_to_tensorflow(content: bytes) -> None:
    assert verdict(content) is False


@examples(600)
@given(content=mutated(JPEGS + PNGS, most=3), repaired=st.booleans())
def test_what_is_ordinary_decodes_whatever_was_changed(content: bytes, repaired: bool) -> None:
    check(checksummed(content) if repaired else content)


def segments(content: bytes) -> list[bytes]:
    """A JPEG in pieces, the data of a scan with its header; joined they are the picture."""
    pieces = [content[:2]]
    at = 2
    for marker, segment in ordinary._segments(content):
        end = at + len(segment)
        if marker == ordinary.SCAN:
            following = ordinary.NEXT_MARKER.search(content, end)
            assert following
            end = following.start()
        pieces.append(content[at:end])
        at = end
    return [*pieces, content[at:]]


def rearranged() -> Iterator[bytes]:
    """JPEGs with a segment left out, doubled, exchanged with another, or taken from another picture."""
    pictures = [segments(content) for content in JPEGS]
    for pieces in pictures:
        for place in range(1, len(pieces) - 1):
            yield b"".join(pieces[:place] + pieces[place + 1 :])
            yield b"".join(pieces[: place + 1] + pieces[place:])
            for other in range(1, place):
                moved = list(pieces)
                moved[place], moved[other] = moved[other], moved[place]
                yield b"".join(moved)
    for pieces, others in itertools.permutations(pictures, 2):
        for place in range(1, min(len(pieces), len(others)) - 1):
            yield b"".join([*pieces[:place], others[place], *pieces[place + 1 :]])


def test_what_is_ordinary_decodes_however_its_segments_are_put_together() -> None:
    kept = sum(check(content) for content in rearranged())
    assert kept > 50


def emptied(content: bytes) -> Iterator[bytes]:
    """A JPEG whose data end early, are noise, or have restarts in the wrong places, before a whole end."""
    start = content.index(b"\xff\xda") + 14
    random = np.random.RandomState(0)
    for keep in (start, start + 1, start + 40, len(content) - 3):
        yield content[:keep] + b"\xff\xd9"
    for size in (10, 1000, 5000):
        yield content[:start] + random.bytes(size).replace(b"\xff", b"") + b"\xff\xd9"
    for number in range(8):
        restart = bytes([0xFF, 0xD0 + number])
        yield content[: start + 30] + restart + content[start + 30 :]
        yield content[: start + 30] + 9 * restart + content[start + 30 :]
        yield content.replace(restart, b"")


@pytest.mark.parametrize("content", JPEGS)
def test_no_damage_to_the_data_of_a_jpeg_is_refused(content: bytes) -> None:
    kept = sum(check(damaged) for damaged in emptied(content))
    assert kept > 5


def packed(rows: bytes, content: bytes = PNGS[0], level: int = 6) -> bytes:
    """A PNG with other data."""
    head = content[:33]
    chunks = [(b"IDAT", zlib.compress(rows, level)), (b"IEND", b"")]
    for kind, data in chunks:
        head += struct.pack(">I", len(data)) + kind + data
        head += struct.pack(">I", zlib.crc32(kind + data))
    return head


def test_a_png_with_too_few_bytes_too_many_or_an_unknown_filter_is_not_ordinary() -> None:
    row = b"\0" + bytes(3 * 52)
    assert check(packed(40 * row))
    for rows in (39 * row, 41 * row, 40 * row + b"\0", 39 * row + b"\x05" + row[1:], b""):
        assert verdict(packed(rows)) is False


def rechunked(content: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG in which a chunk has other data."""
    at = content.index(kind) - 4
    (length,) = struct.unpack_from(">I", content, at)
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    chunk = struct.pack(">I", len(data)) + kind + data + checksum
    return content[:at] + chunk + content[at + length + 12 :]


@pytest.mark.parametrize("size", [0, 1, 679, 771])
def test_a_png_whose_palette_has_an_odd_length_is_not_ordinary(size: int) -> None:
    content = encoded("P", "png")
    assert check(rechunked(content, b"PLTE", bytes(3 * 200)))
    assert verdict(rechunked(content, b"PLTE", bytes(size))) is False
    assert verdict(rechunked(content, b"IEND", b"more")) is False


def test_what_stands_behind_the_end_changes_nothing() -> None:
    for content in JPEGS + PNGS:
        assert check(content + b"more \xff\xd9 IEND")
        assert changed(content, []) == content
