"""Which encoders a data set's records go through, each known by the bytes that it makes of a fixed probe.

Libraries write other bytes from one version to the next, and systems put others under the same name and version: only the
bytes tell. They belong to what a data set is built from, so that shards of two encoders are never mixed.
"""

import base64
import functools
import hashlib
import importlib.metadata
import io
import zlib

from pipelines.config import Dataset
from pipelines.data import sources

AS_IT_IS = ("keep", "reject")  # treatments that encode nothing
# Pictures of 16x16 pixels whose decoding is part of their conversion; the other kinds keep every pixel, and are made here.
LOSSY = {
    "exif_rotation": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/4QAiRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAD/2wBDAA0JCgsKCA0LCgsODg0P"
        "EyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09P"
        "T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//wAARCAAQABADASIAAhEBAxEB/8QAFQABAQAAAAAA"
        "AAAAAAAAAAAABQb/xAAeEAACAgICAwAAAAAAAAAAAAABEQACBAUDEjEyYf/EABUBAQEAAAAAAAAAAAAAAAAAAAQF/8QAHREAAQMF"
        "AQAAAAAAAAAAAAAAAgADBQEREyJRYf/aAAwDAQACEQMRAD8Ak8LVUPH2tZFpKK4murayqGvkYw9aCADVx3B1NR68YD8oSeLou09T"
        "Y6WYxCIjt26//9k="
    ),
    "cmyk": (
        "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwANCQoLCggNCwoLDg4NDxMgFRMSEhMnHB4XIC4pMTAuKS0sMzpKPjM2RjcsLUBXQUZMTlJT"
        "UjI+WmFaUGBKUVJP/8AAFAgAEAAQBEMRAE0RAFkRAEsRAP/EABoAAAICAwAAAAAAAAAAAAAAAAYHAAQBAgP/xAApEAABAwMDAgUF"
        "AAAAAAAAAAABAgMRAAQSBQYxE2EUFSFBUWKRsdHw/9oADgRDAE0AWQBLAAA/AKew9seb6Uq+8Z0cHS3h0spgAzMj5oGvbNuzeDa2"
        "pJTlzH9xQJp2li8ty6XcYVjGM+w796Z1H1ppvlzjSOt1Mp9cY4jvW1jYIvc8G4wiffmf1Vs6IlKkhKs5+mKlKnbF/e2zQat7u4ab"
        "JyKEOFIJ+YB7Cmo7ti3eUFPWrTigIlaATFc9GS4pISlagk+sA+lSmVoj7z5QXnXHCOCtRP5rLW2mWJ6Ns23lzggCftRvpOll0pJB"
        "NSv/2Q=="
    ),
    "webp": (
        "UklGRloAAABXRUJQVlA4IE4AAADQAQCdASoQABAABABoJbACdAEOL3CTAAD+9Jvnr2uVJar5eoHN/yfe7nIU/hunQYyHwyoF/M9X"
        "zfksqb/Jh5kX7OapPXi9SRTjpF8rgAA="
    ),
}


def used(dataset: Dataset) -> dict[str, str]:
    """Digest by encoder, of those that the records of a data set may go through; takes milliseconds and no TensorFlow."""
    facts = sources.facts(dataset.source)
    if facts.adopted:
        return {}
    found = {}
    for trait, treatment in sorted((dataset.convert or {}).items()):
        if treatment not in AS_IT_IS:
            found[f"convert {trait} to {treatment}"] = conversion(trait, treatment)
    if dataset.task.endswith("segmentation") or facts.pixels:
        found["class masks"] = class_masks()
    if facts.animations:
        found["frames of animated pictures"] = conversion("gif", "png")
    draws_objects = facts.object_masks and dataset.include_masks is not False
    if dataset.task == "detection" and draws_objects:
        found["object masks"] = object_masks()
    return found


def libraries() -> dict[str, str]:
    """Versions of what encodes, as the libraries name themselves."""
    # Pillow: only where something is built or asked for.
    from PIL import features

    # Not its zlib: which one it names depends on what the process has loaded before.
    codecs = {
        f"pillow's {name}": str(features.version(name))
        for name in ("libjpeg_turbo", "jpg", "webp", "libtiff")
    }
    packages = {name: importlib.metadata.version(name) for name in ("pillow", "pycocotools")}
    return {"zlib": zlib.ZLIB_RUNTIME_VERSION, **packages, **codecs}


@functools.cache
def class_masks() -> str:
    """Our PNG of a class for each pixel: zlib, and our own code."""
    # NumPy and pycocotools: only data sets with masks.
    import numpy as np

    from pipelines.data import masks  # Likewise.

    row, column = np.mgrid[:96, :131]
    return _digest(masks.encode_classes((row * column // 97 + column // 5) % 19))


@functools.cache
def object_masks() -> str:
    """Our PNG of an object from polygons, run lengths and pixels: pycocotools, zlib, and our own code."""
    # NumPy and pycocotools: only data sets with masks.
    import numpy as np

    from pipelines.data import masks  # Likewise.

    row, column = np.mgrid[:61, :83]
    pixels = (row * column // 7 + row * row // 3) % 5 < 2
    star = [
        [10.4, 3.2, 70.7, 20.5, 33.3, 57.9, 5.1, 30.2, 60.6, 44.4],
        [40.0, 2.0, 80.5, 2.5, 61.25, 40.75],
    ]
    runs = {"size": [61, 83], "counts": [100, 50, 200, 700, 61 * 83 - 1050]}
    return _digest(
        masks.encode_object(star, 61, 83),
        masks.encode_object(runs, 61, 83),
        masks.encode_pixels(pixels),
    )


@functools.cache
def conversion(trait: str, treatment: str) -> str:
    """A conversion that `dataset.convert` may ask for: Pillow, the codecs in it, the quality, and our own code."""
    # Pillow: only data sets that convert.
    from pipelines.data import images

    images.check_treatments({trait: treatment})
    return _digest(images.read(_probe(trait), {trait: treatment}).content)


def _probe(trait: str) -> bytes:
    """A picture that has a trait."""
    if trait in LOSSY:
        return base64.b64decode(LOSSY[trait])
    # NumPy and Pillow: only data sets that convert.
    import numpy as np
    from PIL import Image

    row, column = np.mgrid[:48, :64]
    levels = (row * column // 11 + 3 * column) % 256
    colours = np.stack([levels, 255 - levels, row * 5, (column * 4 + row) % 256], axis=-1).astype(
        np.uint8
    )
    if trait in ("palette", "gif"):
        picture = Image.fromarray(levels.astype(np.uint8)).convert("P")
        picture.putpalette(
            bytes((entry * step) % 256 for entry in range(256) for step in (1, 3, 7))
        )
    elif trait == "alpha":
        picture = Image.fromarray(colours)
    elif trait == "sixteen_bit":
        picture = Image.fromarray((levels * 257).astype(np.uint16))
    else:
        picture = Image.fromarray(colours[..., :3])
    file = io.BytesIO()
    picture.save(file, {"palette": "png", "alpha": "png", "sixteen_bit": "png"}.get(trait, trait))
    return file.getvalue()


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()[:32]
