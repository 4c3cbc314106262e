"""What an image file is, from its header; whether it is whole; and the conversions that a data set may ask for.

Bytes pass through as they are. What Model Garden cannot decode is rejected with the conversion that would mend it,
and converted where `dataset.convert` says so.
"""

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from PIL import Image as Pillow
from PIL import ImageOps

from pipelines.data.example import Rejected
from pipelines.usage import UsageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
NOT_AN_IMAGE = ("not_an_image", f"remove it, or convert it to one of {' '.join(EXTENSIONS)}")
MAX_PIXELS = 178_956_970  # where Pillow takes an image for a decompression bomb
# What can be said of each trait; the first is what happens where nothing is said.
TREATMENTS = {
    "exif_rotation": ("keep", "apply", "reject"),  # TensorFlow ignores it
    "cmyk": ("keep", "jpeg", "reject"),  # TensorFlow converts it in its own way
    "palette": ("keep", "png", "reject"),  # TensorFlow resolves it
    "alpha": ("keep", "png", "reject"),  # TensorFlow drops it
    "sixteen_bit": ("keep", "png", "reject"),  # TensorFlow drops the low byte
    "bmp": ("keep", "png", "jpeg", "reject"),
    "gif": ("reject", "png", "jpeg"),  # TensorFlow makes a film of it
    "webp": ("reject", "png", "jpeg"),  # likewise
    "tiff": ("reject", "png", "jpeg"),
}
QUALITY = 95
# Start-of-frame markers of baseline, extended and progressive JPEG, the last two with Huffman or arithmetic coding.
DECODABLE_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)


@dataclass(frozen=True)
class Image:
    """An image's bytes and what its header says."""

    content: bytes
    format: str
    height: int
    width: int
    traits: tuple[str, ...] = ()
    turned: bool = False  # a quarter, by its EXIF orientation


def check_treatments(convert: Mapping[str, str] | None) -> None:
    """Refuses a conversion that there is not.

    Raises:
        UsageError: the trait or the treatment is unknown.
    """
    for trait, treatment in (convert or {}).items():
        if trait not in TREATMENTS:
            raise UsageError(
                f"dataset.convert: no trait {trait!r}; there are: {', '.join(TREATMENTS)}"
            )
        if treatment not in TREATMENTS[trait]:
            raise UsageError(
                f"dataset.convert.{trait}: no treatment {treatment!r}; there are: {', '.join(TREATMENTS[trait])}"
            )


def read(content: bytes, convert: Mapping[str, str] | None = None) -> Image:
    """Checks an image and treats it as asked.

    Raises:
        Rejected: empty, not an image, truncated, corrupt, too large, or of a kind that has to be converted.
    """
    image = inspect(content)
    treatments = {trait: (convert or {}).get(trait, TREATMENTS[trait][0]) for trait in image.traits}
    for trait, treatment in treatments.items():
        if treatment == "reject":
            choice = " or ".join(
                f"{{{trait}:{name}}}" for name in TREATMENTS[trait] if name != "reject"
            )
            raise Rejected(
                f"image_{trait}",
                f"Model Garden cannot be trusted with it; convert it with dataset.convert={choice}",
            )
    wanted = {treatment for treatment in treatments.values() if treatment != "keep"}
    return _converted(image, wanted) if wanted else image


def inspect(content: bytes) -> Image:
    """Reads the header and checks that the file is whole.

    Raises:
        Rejected: empty, not an image, truncated, corrupt or too large.
    """
    if not content:
        raise Rejected("image_empty", "the file has zero bytes; fetch it again")
    try:
        image = (
            _jpeg(content)
            if content[:2] == b"\xff\xd8"
            else _png(content)
            if content[:8] == b"\x89PNG\r\n\x1a\n"
            else _other(content)
        )
    except (struct.error, IndexError):
        raise Rejected(
            "image_truncated", "the file ends inside its header; fetch it again"
        ) from None
    if image.height * image.width > MAX_PIXELS:
        raise Rejected(
            "image_too_large",
            f"{image.width}x{image.height} pixels; more than {MAX_PIXELS} is taken for an attack",
        )
    if not image.height * image.width:
        raise Rejected("image_corrupt", f"the header says {image.width}x{image.height} pixels")
    return image


def _jpeg(content: bytes) -> Image:
    at, frame, orientation = 2, None, 1
    while True:
        if content[at] != 0xFF:
            raise Rejected("image_corrupt", f"no JPEG marker at byte {at}; fetch it again")
        marker = content[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", content, at + 2)[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _check_frame(marker, precision=content[at + 4])
            frame = struct.unpack_from(">HHB", content, at + 5)
        if marker == 0xE1 and content[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _orientation(content[at + 10 : at + 2 + length])
        if marker == 0xDA:
            break
        if marker == 0xD9:
            raise Rejected("image_corrupt", "the JPEG has no picture in it; fetch it again")
        at += 2 + length
    # Some cameras append data after the end marker.
    if frame is None or content.rfind(b"\xff\xd9", at) < 0:
        raise Rejected("image_truncated", "the JPEG ends early; fetch it again")
    height, width, channels = frame
    traits = (("cmyk",) if channels == 4 else ()) + (("exif_rotation",) if orientation > 1 else ())
    return Image(content, "jpeg", height, width, traits, turned=orientation >= 5)


def _check_frame(marker: int, precision: int) -> None:
    """Refuses what no decoder of TensorFlow's reads; the rest of the kinds are left to its word."""
    if precision != 8:
        raise Rejected(*undecodable(f"a JPEG of {precision} bits a sample"))
    if marker not in DECODABLE_FRAMES:
        raise Rejected(*undecodable("a lossless or hierarchical JPEG"))


def undecodable(reason: str) -> tuple[str, str]:
    """Code and advice for an image that TensorFlow cannot decode."""
    return (
        "image_undecodable",
        f"TensorFlow cannot decode it ({reason}); write it anew as 8-bit JPEG or PNG, or remove it",
    )


def _orientation(exif: bytes) -> int:
    """Tag 0x0112 of the first directory; 1, upright, where there is none."""
    order = "<" if exif[:2] == b"II" else ">"
    try:
        (first,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, first)
        for number in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, first + 2 + 12 * number)
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # A broken EXIF block leaves a picture that can be decoded.
    return 1


def _png(content: bytes) -> Image:
    """The checksum of every chunk is verified."""
    at, header, pixels = 8, None, False
    view = memoryview(content)
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", content, end - 4)[0]:
            raise Rejected(
                "image_corrupt",
                f"wrong checksum in the PNG's {kind.decode('latin-1')} chunk; fetch it again",
            )
        if kind == b"IHDR":
            header = struct.unpack_from(">IIBB", content, at + 8)
        pixels |= kind == b"IDAT"
        if kind == b"IEND" and header:
            if not pixels:
                raise Rejected(*undecodable("a PNG without pixels"))
            width, height, depth, colour = header
            traits = {3: ("palette",), 4: ("alpha",), 6: ("alpha",)}.get(colour, ()) + (
                ("sixteen_bit",) if depth == 16 else ()
            )
            return Image(content, "png", height, width, traits)
        at = end
    raise Rejected("image_truncated", "the PNG ends early; fetch it again")


def _other(content: bytes) -> Image:
    try:
        picture = Pillow.open(io.BytesIO(content))
        kind, (width, height) = str(picture.format).lower(), picture.size
        if width * height <= MAX_PIXELS:
            picture.load()
    except Pillow.DecompressionBombError as error:
        raise Rejected("image_too_large", str(error)) from None
    except OSError as error:
        if "truncated" in str(error):
            raise Rejected("image_truncated", "the file ends early; fetch it again") from None
        raise Rejected(
            "image_unreadable", "the bytes are no image; replace or remove the file"
        ) from None
    except Exception as error:
        raise Rejected("image_corrupt", f"{error!r}; fetch it again") from None
    if kind not in TREATMENTS:
        raise Rejected("image_format", f"{kind} is not supported; convert it to JPEG or PNG")
    return Image(content, kind, height, width, (kind,))


def _converted(image: Image, treatments: set[str]) -> Image:
    try:
        opened = Pillow.open(io.BytesIO(image.content))
        opened.load()
    except Exception as error:
        raise Rejected(
            "image_corrupt", f"cannot be decoded for its conversion: {error!r}"
        ) from None
    kind = (
        "jpeg"
        if "jpeg" in treatments or (image.format == "jpeg" and "png" not in treatments)
        else "png"
    )
    try:
        content, (width, height) = _saved(opened, kind, upright="apply" in treatments)
    except Exception as error:
        raise Rejected(
            "image_unconvertible",
            f"cannot be written as {kind}, which has its limits: {error!r}; convert it yourself",
        ) from None
    return replace(
        image, content=content, format=kind, height=height, width=width, traits=(), turned=False
    )


def _saved(picture: Pillow.Image, kind: str, *, upright: bool) -> tuple[bytes, tuple[int, int]]:
    """A picture in one of the two formats, and its width and height."""
    if upright:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16") or picture.mode == "I":
        picture = picture.point(lambda value: value / 256).convert("L")  # the high byte
    file = io.BytesIO()
    picture.convert("RGB").save(file, kind, **({"quality": QUALITY} if kind == "jpeg" else {}))
    return file.getvalue(), picture.size
