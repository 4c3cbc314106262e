"""Whatever bytes a file has: the parsers give a value, or say why not; never another error, never for long, never in gigabytes."""

import io
import json
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from pipelines.data import images, json_elements, masks
from pipelines.data.example import Rejected
from pipelines.system import tfrecord
from pipelines.usage import UsageError
from tests.fuzzing import examples, guided, mutated

SECONDS, MEGABYTES = (
    5,
    700,
)  # of one file of a few kilobytes; the largest image that is taken has 180 million pixels
PIXELS = np.random.RandomState(0).randint(0, 255, (9, 12, 4), np.uint8)


def picture(mode: str, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    deep = Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 256)
    (deep if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)).save(file, kind, **how)
    return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    return exif


PICTURES = [
    picture("RGB", "jpeg", exif=turned()),
    picture("CMYK", "jpeg"),
    picture("L", "jpeg", progressive=True),
    picture("RGB", "png", exif=turned()),
    *(picture(mode, "png") for mode in ("L", "P", "1", "RGBA", "I;16")),
    *(picture("RGB", kind) for kind in ("bmp", "webp", "tiff")),
    picture("P", "gif"),
    picture("RGB", "tiff", compression="tiff_deflate"),
    picture("1", "tiff", compression="group4"),
]
CONVERSIONS: list[dict[str, str] | None] = [
    None,
    {
        trait: "png" if "png" in names else "apply"
        for trait, names in images.TREATMENTS.items()
        if {"png", "apply"} & {*names}
    },
    {trait: "jpeg" for trait, names in images.TREATMENTS.items() if "jpeg" in names},
]


@contextmanager
def bounded() -> Iterator[None]:
    """Fails when what is inside takes long or much memory."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - began < SECONDS
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEGABYTES * 1000


def checksummed(content: bytes) -> bytes:
    """A PNG whose chunks have the right checksums again, so that changes in them are met by more than the checksum."""
    parts, at = [content[:8]], 8
    while content[:4] == b"\x89PNG" and at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunk = content[at + 4 : at + 8 + length]
        parts.append(struct.pack(">I", length) + chunk + struct.pack(">I", zlib.crc32(chunk)))
        at += 12 + length
    return b"".join(parts) if content[:4] == b"\x89PNG" else content


def header(width: int, height: int) -> bytes:
    """A BMP of one bit a pixel, all black."""
    row = (width + 31) // 32 * 4
    start = struct.pack(
        "<IIiiHHIIiiII", 62 + row * height, 40, width, height, 1, 1, 0, row * height, 0, 0, 2, 2
    )
    return (
        b"BM"
        + start[:4]
        + struct.pack("<HHI", 0, 0, 62)
        + start[4:]
        + b"\0\0\0\0\xff\xff\xff\0"
        + bytes(row * height)
    )


@examples(250)
@given(content=mutated(PICTURES), convert=st.sampled_from(CONVERSIONS), repaired=st.booleans())
@example(content=header(70_000, 1), convert={"bmp": "jpeg"}, repaired=False).via(
    "no JPEG can have more than 65535 columns"
)
@pytest.mark.filterwarnings("ignore")
def test_an_image_is_read_or_rejected(
    content: bytes, convert: dict[str, str] | None, repaired: bool
) -> None:
    content = checksummed(content) if repaired else content
    with bounded(), guided(images):
        try:
            image = images.read(content, convert)
        except Rejected as rejected:
            assert rejected.code and rejected.advice
        else:
            assert image.height > 0 < image.width and image.content


@examples(150)
@given(content=mutated(PICTURES), repaired=st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_a_mask_is_read_or_rejected(content: bytes, repaired: bool) -> None:
    content = checksummed(content) if repaired else content
    with bounded(), guided(masks):
        for read, kind in ((masks.read_classes, np.uint8), (masks.read_segments, np.int32)):
            try:
                pixels = read(content)
            except Rejected as rejected:
                assert rejected.code.startswith("mask_")
            else:
                assert pixels.ndim == 2 and pixels.dtype == kind


numbers = st.one_of(
    st.integers(-3, 40),
    st.floats(),
    st.sampled_from([1e6, -999_999, 999_999.5, 2**70, None, "7", True, 1e-300]),
)
polygons = st.lists(st.lists(numbers, max_size=14), max_size=4)
letters = st.text(st.characters(min_codepoint=44, max_codepoint=116), max_size=30)
counts = st.one_of(
    st.lists(st.one_of(st.integers(-1, 800), numbers), max_size=6),
    letters,
    st.sampled_from(["\0", "é", None, 5]),
)
lengths = st.fixed_dictionaries(
    {},
    optional={
        "size": st.sampled_from([[24, 32], [24, 32, 1], [1, 1], "24", None, 24]),
        "counts": counts,
    },
)
segmentations = st.one_of(polygons, lengths, st.none(), letters, numbers)


@examples(250)
@given(segmentation=segmentations)
@example(segmentation={"size": [24, 32], "counts": "o" * 400_000}).via(
    "one number of endless digits took 16 seconds"
)
@example(segmentation={"size": [24, 32], "counts": [0, 0, 0, 0, 768]}).via(
    "the library's box of empty runs had no pixels"
)
@example(segmentation={"size": [24, 32], "counts": [0, 0, 700, 20, 0, 0, 48]}).via(
    "the same around a run that has some"
)
@example(segmentation=[[-9e5, -9e5, 9e5, 9e5] * 40]).via(
    "a zigzag far outside took gigabytes, and the process with it"
)
def test_an_objects_mask_is_encoded_or_rejected(segmentation: Any) -> None:
    with bounded(), guided(masks):
        try:
            encoded = masks.encode_object(segmentation, 24, 32)
        except Rejected as rejected:
            assert rejected.code.startswith("mask_")
            return
    pixels = masks.read_classes(encoded)
    assert pixels.shape == (24, 32) and pixels.any() and pixels.max() == 1


DOCUMENTS = [
    json.dumps(
        {
            "info": {"year": 2017},
            "images": [{"id": 1, "file_name": "ü.jpg"}, {"id": 2}],
            "annotations": [[1.5, None, True, "x"]] * 3,
        }
    ).encode(),
    json.dumps(
        {"images": [], "annotations": [], "categories": [{"id": 1, "name": 'a"\\b'}]},
        indent=1,
        ensure_ascii=False,
    ).encode("utf-8-sig"),
]


@examples(200)
@given(content=mutated(DOCUMENTS), chunk=st.sampled_from([1, 7, 4096]))
@example(content=b'{"images":[' + b"9" * 5000 + b"]}", chunk=4096).via(
    "a number longer than Python converts"
)
@example(content=b"{[1]: 2}", chunk=4096).via("a key that is no text")
def test_a_document_is_streamed_or_refused(content: bytes, chunk: int) -> None:
    before, json_elements.CHUNK = json_elements.CHUNK, chunk
    try:
        with bounded(), guided(json_elements):
            found = list(
                json_elements.read(io.BytesIO(content), "some.json", {"images", "annotations"})
            )
    except UsageError as error:
        assert "some.json" in str(error)
    else:
        for section, first, text, _ in found:
            assert (
                section in ("images", "annotations")
                and content[first : first + len(text)].decode("latin-1") == text
            )
    finally:
        json_elements.CHUNK = before


RECORDS = [b"", b"one", bytes(range(256)) * 3]
FRAMED = [b"".join(b"".join(tfrecord.frame(record)) for record in RECORDS), b""]


def endless() -> bytes:
    """A header that announces more bytes than there is memory, with its right checksum."""
    length = struct.pack("<Q", 2**62)
    return length + struct.pack("<I", tfrecord.checksum(length))


@examples(200)
@given(content=mutated(FRAMED))
@example(content=endless()).via("a record longer than memory")
def test_records_are_read_up_to_the_first_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "some.tfrecord").write_bytes(content)
    found = []
    with bounded(), guided(tfrecord), (tmp_path / "some.tfrecord").open("rb") as file:
        try:
            found.extend(tfrecord.read(file))
        except ValueError as error:
            assert "at byte" in str(error)
        else:
            assert b"".join(b"".join(tfrecord.frame(record)) for record in found) == content
