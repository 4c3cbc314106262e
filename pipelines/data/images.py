"""What an image file is, from its header: format, size, and whether it is whole."""

import io
import struct
import zlib
from dataclasses import dataclass

from PIL import Image as Pillow

from pipelines.data.sources import Rejected

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
MAX_PIXELS = 200_000_000


@dataclass(frozen=True)
class Image:
    """An image's bytes and what its header says."""

    content: bytes
    format: str
    height: int
    width: int


def inspect(content: bytes) -> Image:
    """Reads the header and checks that the file is whole.

    Raises:
        Rejected: empty, not an image, truncated, corrupt or too large.
    """
    if not content:
        raise Rejected("image_empty", "the file has zero bytes; fetch it again")
    if content[:2] == b"\xff\xd8":
        kind, (height, width) = "jpeg", _jpeg(content)
    elif content[:8] == b"\x89PNG\r\n\x1a\n":
        kind, (height, width) = "png", _png(content)
    else:
        kind, (height, width) = _other(content)
    if height * width > MAX_PIXELS:
        raise Rejected("image_too_large", f"{width}x{height} pixels; more than {MAX_PIXELS} is taken for an attack")
    if not height * width:
        raise Rejected("image_corrupt", f"the header says {width}x{height} pixels")
    return Image(content, kind, height, width)


def _jpeg(content: bytes) -> tuple[int, int]:
    """Height and width from the frame header."""
    at, size = 2, None
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            raise Rejected("image_corrupt", f"no JPEG marker at byte {at}")
        marker = content[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", content, at + 2)[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(content):
            size = struct.unpack_from(">HH", content, at + 5)
        if marker == 0xDA:
            break
        at += 2 + length
    # Some cameras append data after the end marker.
    if size is None or content.rfind(b"\xff\xd9", at) < 0:
        raise Rejected("image_truncated", "the JPEG ends early; fetch it again")
    return size


def _png(content: bytes) -> tuple[int, int]:
    """Height and width from IHDR; the checksum of every chunk is verified."""
    at, size = 8, None
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content):
            break
        if zlib.crc32(memoryview(content)[at + 4 : end - 4]) != struct.unpack_from(">I", content, end - 4)[0]:
            raise Rejected("image_corrupt", f"wrong checksum in the PNG's {kind.decode('latin-1')} chunk; fetch it again")
        if kind == b"IHDR" and length >= 8:
            width, height = struct.unpack_from(">II", content, at + 8)
            size = height, width
        if kind == b"IEND" and size:
            return size
        at = end
    raise Rejected("image_truncated", "the PNG ends early; fetch it again")


def _other(content: bytes) -> tuple[str, tuple[int, int]]:
    try:
        picture = Pillow.open(io.BytesIO(content))
        kind, (width, height) = str(picture.format).lower(), picture.size
        picture.load()
    except Pillow.DecompressionBombError as error:
        raise Rejected("image_too_large", str(error)) from None
    except Exception:
        raise Rejected("image_unreadable", "the bytes are no image; replace or remove the file") from None
    if kind not in ("bmp", "gif"):
        raise Rejected("image_format", f"{kind} is not decoded by TensorFlow; convert it to JPEG or PNG")
    return kind, (height, width)
