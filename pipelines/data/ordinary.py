"""Pictures of which it is certain, without TensorFlow, that its decoder takes them; all others are for TensorFlow to say.

It decodes JPEG with libjpeg-turbo and PNG with libpng. What the first refuses stands in the segments around the compressed data,
never in these data: where they are damaged it warns, and fills the rest with grey. So it is enough to follow the segments, and to have
the same library, which Pillow carries, decode a small picture with the same ones; equal ones are tried once. libpng refuses
compressed data as well, so that those of a PNG are unpacked here to the last row.

Only the commonest layouts are ordinary. `tests/data/test_ordinary.py` damages pictures and asks TensorFlow.
"""

import functools
import io
import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image as Pillow

from pipelines.data.images import Image

LONGEST_SIDE = 65_500  # libjpeg's limit
# JPEG's markers.
FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive
SCAN = 0xDA
END = 0xD9
WORDS = (*range(0xE1, 0xEE), 0xEF, 0xFE)  # of applications, and comments: no decoder reads them
# The markers of an ordinary JPEG in their order, without the words: tables and colours, a frame, one scan or the several
# of a progressive one.
LAYOUT = re.compile(
    rb"[\xc4\xdb\xdd\xe0\xee]*"
    rb"([\xc0\xc1][\xc4\xdb\xdd\xe0\xee]*\xda|\xc2([\xc4\xdb\xdd\xe0\xee]*\xda)+)\xd9"
)
# Behind a scan's header: neither a byte of the data nor a restart.
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")
ENDING = bytes([0xFF, END])
SMALL = struct.pack(">HH", 32, 32)  # height and width of what is decoded instead
# libjpeg refuses progressive data whose sums overflow 31 bits, which so few blocks of 8x8 pixels cannot reach.
MOST_BLOCKS = 2**16
# PNG's chunks that libpng at most warns of, whatever is in them.
REMARKS = (b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"eXIf", b"sRGB", b"gAMA", b"cHRM", b"iCCP")
LONGEST_REMARK = 2**20
# How long the others may be; colours of a palette have three bytes.
LENGTHS = {b"IHDR": (13,), b"PLTE": range(3, 3 * 256 + 1, 3), b"IEND": (0,)}
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by a PNG's kind of colour
PALETTE = 3  # such a kind
MOST_BYTES = 2**26  # of an unpacked PNG, which is in memory at once
FILTERS = bytes(range(5))  # what a row of a PNG may begin with
FULL_WINDOW = 7  # of packed data: any distance is inside


def is_ordinary(image: Image) -> bool:
    """Whether TensorFlow's decoder takes a picture that `images.read` took, and finds in it the size that its header says.

    False means that only TensorFlow can tell.
    """
    if max(image.height, image.width) > LONGEST_SIDE:
        return False
    try:
        if image.format == "jpeg":
            return _is_ordinary_jpeg(image)
        return image.format == "png" and _is_ordinary_png(image)
    except (struct.error, IndexError, ValueError, zlib.error):
        return False


def _is_ordinary_jpeg(image: Image) -> bool:
    markers = bytearray()
    kept = [b"\xff\xd8"]
    is_progressive = False
    for marker, segment in _segments(image.content):
        if marker in WORDS:
            continue
        if marker in FRAMES:
            is_progressive = marker == FRAMES[-1]
            if segment[9] not in (1, 3):  # components
                return False
            segment = segment[:5] + SMALL + segment[9:]
        markers.append(marker)
        kept.append(segment)
    if is_progressive and _blocks(image) > MOST_BLOCKS:
        return False
    return LAYOUT.fullmatch(markers) is not None and _is_decoded(b"".join(kept))


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and bytes of each segment of a JPEG up to its end, without the data of scans.

    Raises:
        ValueError: no segment begins where one should.
    """
    at = 2
    marker = 0
    while marker != END:
        if content[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        marker = content[at + 1]
        length = 0
        if marker != END:
            (length,) = struct.unpack_from(">H", content, at + 2)
        end = at + 2 + length
        yield marker, content[at:end]
        at = end
        if marker == SCAN:
            following = NEXT_MARKER.search(content, end)
            at = following.start() if following else len(content)


def _blocks(image: Image) -> int:
    """How many blocks of 8x8 pixels a component has at most, with those that fill up the last ones."""
    return (image.height // 8 + 5) * (image.width // 8 + 5)


@functools.lru_cache(maxsize=1024)
def _is_decoded(content: bytes) -> bool:
    """Whether libjpeg decodes a small picture without data."""
    try:
        with Pillow.open(io.BytesIO(content), formats=("JPEG",)) as picture:
            picture.load()
    except Exception:
        return False
    return True


def _is_ordinary_png(image: Image) -> bool:
    kinds: list[bytes] = []
    packed: list[bytes] = []
    for kind, data in _chunks(image.content):
        if kind in REMARKS and len(data) < LONGEST_REMARK:
            continue
        if kind == b"IDAT":
            packed.append(data)
        elif len(data) not in LENGTHS.get(kind, ()):
            return False
        kinds.append(kind)
    depth, colour, *methods = image.content[24:29]
    layout = [b"IHDR", *[b"PLTE"] * (colour == PALETTE), *[b"IDAT"] * len(packed), b"IEND"]
    if kinds != layout or depth != 8 or colour not in CHANNELS or any(methods):
        return False
    row = 1 + image.width * CHANNELS[colour]
    return _is_unpacked(b"".join(packed), row, image.height * row)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each chunk of a PNG up to its end."""
    at = 8
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, at)
        yield kind, content[at + 8 : at + 8 + length]
        at += 12 + length


def _is_unpacked(packed: bytes, row: int, size: int) -> bool:
    """Whether the data of a PNG are those of its rows, each with a filter that there is."""
    window = packed[0] >> 4
    if size > MOST_BYTES or (window < FULL_WINDOW and size > 256 << window):
        return False
    unpacking = zlib.decompressobj()
    rows = unpacking.decompress(packed, size + 1)
    if len(rows) != size or not unpacking.eof or unpacking.unused_data:
        return False
    return not rows[::row].strip(FILTERS)
