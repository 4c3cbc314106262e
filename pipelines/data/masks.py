"""Masks as pixels and as PNG: polygons, run lengths, class maps."""

import io
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle

from pipelines.data.sources import Rejected

PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)


def rasterise(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Pixels in {0, 1} of a COCO segmentation: polygons, run lengths as a list, or compressed.

    Raises:
        Rejected: it is none of these, or does not fit the image.
    """
    try:
        if isinstance(segmentation, dict):
            if list(segmentation["size"]) != [height, width]:
                raise Rejected("mask_size", f"run lengths are for {segmentation['size']}, the image is {[height, width]}")
            if isinstance(segmentation["counts"], list):
                _check_runs(segmentation["counts"], height * width)
                encoded = rle.frPyObjects(segmentation, height, width)
            else:
                encoded = {"size": [height, width], "counts": segmentation["counts"].encode()}
        else:
            encoded = rle.merge(rle.frPyObjects(_polygons(segmentation), height, width))
        return rle.decode(encoded)
    except Rejected:
        raise
    except Exception as error:
        raise Rejected("mask_malformed", f"polygons or run lengths cannot be read: {error}") from None


def _polygons(segmentation: Any) -> list[list[float]]:
    polygons = [[float(number) for number in polygon] for polygon in segmentation]
    if not polygons or any(len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(polygon).all() for polygon in polygons):
        raise Rejected("mask_malformed", "a polygon needs three points or more, as x, y, x, y, …")
    return polygons


def _check_runs(counts: list[int], pixels: int) -> None:
    if any(not isinstance(count, int) or count < 0 for count in counts) or sum(counts) != pixels:
        raise Rejected("mask_malformed", f"run lengths must add up to the image's {pixels} pixels")


def encode(pixels: np.ndarray) -> bytes:
    """A PNG of one 8-bit channel."""
    return cv2.imencode(".png", pixels, PNG)[1].tobytes()


def read_classes(content: bytes) -> np.ndarray:
    """Classes of a mask image, a palette's indices taken as they are.

    Raises:
        Rejected: it is no image, or has no one class per pixel.
    """
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except Exception as error:
        raise Rejected("mask_unreadable", f"the mask cannot be decoded: {error}") from None
    if picture.mode not in ("L", "P", "1"):
        raise Rejected("mask_mode", f"a mask has one 8-bit channel, this one is {picture.mode}")
    return np.asarray(picture, np.uint8)


def as_png(content: bytes, classes: np.ndarray) -> bytes:
    """The class map as PNG of one channel: a palette would be decoded into colours."""
    return encode(classes)
