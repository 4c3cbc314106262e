"""Volumes and their classes in two folders, paired by name: volumes/0001.png, masks/0001.png.

A volume is one grey picture of 8 or 16 bits, its square slices one below the other from the first to the last; so are
the classes of its voxels, where 255 is none.
"""

import io
from dataclasses import replace

import numpy as np
from PIL import Image as pictures

from pipelines.data import masks
from pipelines.data.example import Example, Loaded, Rejected
from pipelines.data.images import Image
from pipelines.data.listing import Facts, Request
from pipelines.data.sources import mask_folder

FACTS = Facts(tasks=("volume_segmentation",), required=("images", "masks"))
GREY = ("L", "I;16")  # Pillow's names of 8 and 16 bits
listing = mask_folder.listing


def load(example: Example, image: Image, request: Request) -> Loaded:
    """The voxels of one volume, from 0 to 1, and of each class where it is, as Model Garden reads them."""
    loaded = mask_folder.load(example, image, request)
    voxels = _voxels(image)
    classes = masks.read_classes(loaded.record["mask"])
    count = len(request.dataset.labels or ())
    where = _slices(classes)[..., None] == np.arange(count)
    record = {
        **loaded.record,
        "depth": voxels.shape[2],
        "voxels": voxels.tobytes(),
        "where": where.astype(np.float32).tobytes(),
    }
    return replace(loaded, record=record)


def _voxels(image: Image) -> np.ndarray:
    picture = pictures.open(io.BytesIO(image.content))
    if picture.mode not in GREY:
        raise Rejected(
            "volume_not_grey",
            f"its picture is {picture.mode}; a voxel has one number: write it as a grey PNG of 8 or 16 bits",
        )
    if image.height % image.width:
        raise Rejected(
            "volume_uneven",
            f"{image.height} rows are no whole number of slices of {image.width}x{image.width}; a slice is square",
        )
    pixels = np.asarray(picture)
    brightest = np.iinfo(pixels.dtype).max
    voxels = _slices(pixels) / np.float32(brightest)
    return voxels.astype(np.float32)


def _slices(pixels: np.ndarray) -> np.ndarray:
    """Rows, columns and slices, in the order that Model Garden takes them in."""
    height, width = pixels.shape
    stacked = pixels.reshape(
        height // width,
        width,
        width,
    )
    return np.ascontiguousarray(np.moveaxis(stacked, 0, -1))
