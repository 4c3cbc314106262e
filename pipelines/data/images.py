"""What an image file is, from its header; whether it is whole; and the conversions that a data set may ask for.

Bytes pass through as they are. What Model Garden cannot decode is rejected with the conversion that would help,
and converted where `dataset.convert` says so.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
# JPEG's markers.
END = 0xD9
SCAN = 0xDA  # what follows is the picture's data
EXIF = 0xE1
FILL = 0xFF
ORIENTATION = 0x0112  # EXIF's tag of it
# Frames of baseline, extended and progressive JPEG, the last two with Huffman or arithmetic coding.
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
            traits = ", ".join(TREATMENTS)
            raise UsageError(f"dataset.convert: no trait {trait!r}; there are: {traits}")
        if treatment not in TREATMENTS[trait]:
            treatments = ", ".join(TREATMENTS[trait])
            raise UsageError(
                f"dataset.convert.{trait}: no treatment {treatment!r}; there are: {treatments}"
            )


def read(content: bytes, convert: Mapping[str, str] | None = None) -> Image:
    """Checks an image and treats it as asked.

    Raises:
        Rejected: empty, not an image, truncated, corrupt, too large, or of a kind that has to be converted.
    """
    image = inspect(content)
    wanted = set()
    for trait in image.traits:
        treatment = (convert or {}).get(trait, TREATMENTS[trait][0])
        if treatment == "reject":
            raise _refused(trait)
        if treatment != "keep":
            wanted.add(treatment)
    return _converted(image, wanted) if wanted else image


def _refused(trait: str) -> Rejected:
    conversions = [name for name in TREATMENTS[trait] if name != "reject"]
    choice = " or ".join(f"{{{trait}:{name}}}" for name in conversions)
    advice = f"Model Garden cannot be trusted with it; convert it with dataset.convert={choice}"
    return Rejected(f"image_{trait}", advice)


def inspect(content: bytes) -> Image:
    """Reads the header and checks that the file is whole.

    Raises:
        Rejected: empty, not an image, truncated, corrupt or too large.
    """
    if not content:
        raise Rejected("image_empty", "the file has zero bytes; fetch it again")
    try:
        image = _inspected(content)
    except (struct.error, IndexError):
        advice = "the file ends inside its header; fetch it again"
        raise Rejected("image_truncated", advice) from None
    pixels = image.height * image.width
    size = f"{image.width}x{image.height} pixels"
    if pixels > MAX_PIXELS:
        advice = f"{size}; more than {MAX_PIXELS} is taken for an attack"
        raise Rejected("image_too_large", advice)
    if not pixels:
        raise Rejected("image_corrupt", f"the header says {size}")
    return image


def _inspected(content: bytes) -> Image:
    if content.startswith(b"\xff\xd8"):
        return _jpeg(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(content)
    return _other(content)


def _jpeg(content: bytes) -> Image:
    """Follows the chain of markers to the picture's data."""
    frame = None
    orientation = 1
    for marker, at in _segments(content):
        if _is_frame(marker):
            _check_frame(marker, precision=content[at + 4])
            frame = struct.unpack_from(">HHB", content, at + 5)
        if marker == EXIF and content[at + 4 : at + 10] == b"Exif\0\0":
            length = struct.unpack_from(">H", content, at + 2)[0]
            orientation = _orientation(content[at + 10 : at + 2 + length])
        if marker == END:
            raise Rejected("image_corrupt", "the JPEG has no picture in it; fetch it again")
    # Some cameras append data after the end marker.
    if frame is None or content.rfind(b"\xff\xd9", at) < 0:
        raise Rejected("image_truncated", "the JPEG ends early; fetch it again")
    height, width, channels = frame
    traits = []
    if channels == 4:
        traits.append("cmyk")
    if orientation > 1:
        traits.append("exif_rotation")
    return Image(
        content,
        "jpeg",
        height,
        width,
        tuple(traits),
        turned=orientation >= 5,
    )


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """(marker, byte at which it stands) of each segment of a JPEG, up to that before the picture's data."""
    at = 2
    marker = 0
    while marker != SCAN:
        if content[at] != 0xFF:
            raise Rejected("image_corrupt", f"no JPEG marker at byte {at}; fetch it again")
        marker = content[at + 1]
        if marker == FILL:
            at += 1
        elif _is_alone(marker):
            at += 2
        else:
            length = struct.unpack_from(">H", content, at + 2)[0]
            yield marker, at
            at += 2 + length


def _is_alone(marker: int) -> bool:
    """Whether a marker has no segment behind it."""
    return marker == 0x01 or 0xD0 <= marker <= 0xD8


def _is_frame(marker: int) -> bool:
    """Whether a marker begins a header with the size of the picture."""
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)


def _check_frame(marker: int, precision: int) -> None:
    """Refuses what no decoder of TensorFlow's reads; the rest of the kinds are left to its word."""
    if precision != 8:
        raise Rejected(*undecodable(f"a JPEG of {precision} bits a sample"))
    if marker not in DECODABLE_FRAMES:
        raise Rejected(*undecodable("a lossless or hierarchical JPEG"))


def undecodable(reason: str) -> tuple[str, str]:
    """Code and advice for an image that TensorFlow cannot decode."""
    remedy = "write it anew as 8-bit JPEG or PNG, or remove it"
    return "image_undecodable", f"TensorFlow cannot decode it ({reason}); {remedy}"


def _orientation(exif: bytes) -> int:
    """The orientation in the first directory; 1, upright, where there is none."""
    order = "<" if exif[:2] == b"II" else ">"
    try:
        (first,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, first)
        for number in range(count):
            entry = first + 2 + 12 * number
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # A broken EXIF block leaves a picture that can be decoded.
    return 1


def _png(content: bytes) -> Image:
    """Follows the chain of chunks to its end, and verifies the checksum of each."""
    header = None
    has_pixels = False
    for kind, start in _chunks(content):
        if kind == b"IHDR":
            header = struct.unpack_from(">IIBB", content, start)
        if kind == b"IDAT":
            has_pixels = True
        if kind == b"IEND" and header:
            if not has_pixels:
                raise Rejected(*undecodable("a PNG without pixels"))
            width, height, depth, colour = header
            return Image(
                content,
                "png",
                height,
                width,
                _png_traits(depth, colour),
            )
    raise Rejected("image_truncated", "the PNG ends early; fetch it again")


def _chunks(content: bytes) -> Iterator[tuple[bytes, int]]:
    """(kind, byte at which its data start) of each chunk of a PNG that is there as a whole."""
    view = memoryview(content)
    at = 8
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content):
            return
        (checksum,) = struct.unpack_from(">I", content, end - 4)
        if zlib.crc32(view[at + 4 : end - 4]) != checksum:
            name = kind.decode("latin-1")
            advice = f"wrong checksum in the PNG's {name} chunk; fetch it again"
            raise Rejected("image_corrupt", advice)
        yield kind, at + 8
        at = end


def _png_traits(depth: int, colour: int) -> tuple[str, ...]:
    traits = []
    if colour == 3:
        traits.append("palette")
    if colour in (4, 6):
        traits.append("alpha")
    if depth == 16:
        traits.append("sixteen_bit")
    return tuple(traits)


def _other(content: bytes) -> Image:
    """Has Pillow decode a picture of another kind."""
    try:
        picture = Pillow.open(io.BytesIO(content))
        kind = str(picture.format).lower()
        width, height = picture.size
        if width * height <= MAX_PIXELS:
            picture.load()
    except Pillow.DecompressionBombError as error:
        raise Rejected("image_too_large", str(error)) from None
    except OSError as error:
        if "truncated" in str(error):
            advice = "the file ends early; fetch it again"
            raise Rejected("image_truncated", advice) from None
        advice = "the bytes are no image; replace or remove the file"
        raise Rejected("image_unreadable", advice) from None
    except Exception as error:
        raise Rejected("image_corrupt", f"{error!r}; fetch it again") from None
    if kind not in TREATMENTS:
        advice = f"{kind} is not supported; convert it to JPEG or PNG"
        raise Rejected("image_format", advice)
    return Image(content, kind, height, width, (kind,))


def _converted(image: Image, treatments: set[str]) -> Image:
    try:
        opened = Pillow.open(io.BytesIO(image.content))
        opened.load()
    except Exception as error:
        advice = f"cannot be decoded for its conversion: {error!r}"
        raise Rejected("image_corrupt", advice) from None
    stays_jpeg = image.format == "jpeg" and "png" not in treatments
    kind = "jpeg" if stays_jpeg or "jpeg" in treatments else "png"
    try:
        return written(opened, kind, upright="apply" in treatments)
    except Exception as error:
        advice = (
            f"cannot be written as {kind}, which has its limits: {error!r}; convert it yourself"
        )
        raise Rejected("image_unconvertible", advice) from None


def written(picture: Pillow.Image, kind: str, *, upright: bool = False) -> Image:
    """A picture written in one of the two formats, upright by its EXIF orientation where that is asked for."""
    if upright:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16") or picture.mode == "I":
        picture = picture.point(lambda value: value / 256).convert("L")  # the high byte
    options = {"quality": QUALITY} if kind == "jpeg" else {}
    file = io.BytesIO()
    picture.convert("RGB").save(
        file,
        kind,
        **options,
    )
    width, height = picture.size
    return Image(file.getvalue(), kind, height, width)
