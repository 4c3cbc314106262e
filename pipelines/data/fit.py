"""Whether a record is as Model Garden's decoder and parser need it, found out without TensorFlow."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.data import frames, images, masks
from pipelines.data.example import Rejected
from pipelines.data.images import Image

WHOLE_IMAGE = (0, 0, 1, 1)  # the box of what has none


class Labels(NamedTuple):
    """The classes of a data set, and the number of the first; any number is one where there are no names."""

    names: Sequence[str]
    first: int


def read(record: dict[str, Any], labels: Labels) -> list[Image]:
    """The pictures of a record, each checked, and with them sizes, labels and boxes.

    Raises:
        Rejected: one of them does not fit.
    """
    pictures = [images.read(content) for content in frames.pictures(record)]
    for image in pictures:
        _check_size(record, image)
    frames.check(pictures)
    _check_labels(record, labels)
    return pictures


def _check_size(record: Mapping[str, Any], image: Image) -> None:
    height, width = record["height"], record["width"]
    if (height, width) not in ((0, 0), (image.height, image.width)):
        advice = f"the record says {width}x{height}, the image is {image.width}x{image.height}"
        raise Rejected("image_size", advice)


def _check_labels(record: dict[str, Any], labels: Labels) -> None:
    for item in labelled(record):
        _check_label(item["label"], labels)
        top, left, bottom, right = item.get("box", WHOLE_IMAGE)
        if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
            advice = f"box {item['box']} is not (ymin, xmin, ymax, xmax) as fractions of the image"
            raise Rejected("box_malformed", advice)


def labelled(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What of a record has a label: its objects, or itself."""
    return record.get("objects", [record] if "label" in record else [])


def _check_label(label: int, labels: Labels) -> None:
    number = label - labels.first
    if number < 0 or (labels.names and number >= len(labels.names)):
        advice = f"label {label} is not one of dataset.labels, which start at {labels.first}"
        raise Rejected("unknown_class", advice)


def mask_pixels(record: dict[str, Any], image: Image, names: Sequence[str]) -> dict[str, int]:
    """Checks sizes and values of masks, of classes or of objects; returns how many pixels each class has.

    Raises:
        Rejected: a mask does not fit.
    """
    pixels: dict[str, int] = {}
    if "mask" in record:
        pixels = masks.pixels(_mask(record["mask"], image), names)
    for item in record.get("objects", ()):
        if item["mask"] is None:
            continue
        most = int(_mask(item["mask"], image).max())
        if most > 1:
            advice = f"a mask has the value {most}; an object's pixels are 1, all others 0"
            raise Rejected("mask_malformed", advice)
    return pixels


def _mask(content: bytes, image: Image) -> np.ndarray:
    values = masks.as_tensorflow_reads(content)
    masks.check_size(values, image.height, image.width)
    return values
