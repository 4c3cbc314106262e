"""Records with a class for each pixel, through the official decoder and parser of semantic segmentation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from official.vision.dataloaders import segmentation_input

from pipelines.data.manifest import Manifest
from pipelines.data.preview import Picture
from pipelines.data.reading import SIZE

IGNORED = 255  # the class of pixels that training leaves out


def decode(record: tf.Tensor, built: Manifest) -> dict[str, Any]:
    """The encoded image and the encoded mask of a record."""
    return segmentation_input.Decoder().decode(record)


def parser(built: Manifest) -> Callable[[tf.Tensor], Any]:
    """Model Garden's decoder and parser, one after the other."""
    decoder = segmentation_input.Decoder()
    parse = segmentation_input.Parser([SIZE, SIZE]).parse_fn(is_training=False)
    return lambda record: parse(decoder.decode(record))


def problems(record: tf.Tensor, built: Manifest) -> list[str]:
    """What is wrong with a record, one line each."""
    decoded = decode(record, built)
    mask = _classes(decoded)
    image = tf.io.decode_image(decoded["image/encoded"], channels=3)
    lines = []
    if mask.shape != tuple(image.shape[:2]):
        lines.append(f"the mask is {mask.shape}, the image {image.shape}")
    values = [int(value) for value in np.unique(mask)]
    unknown = [value for value in values if value >= len(built.labels) and value != IGNORED]
    if unknown:
        lines.append(f"classes {unknown} of {len(built.labels)}")
    return lines


def as_decoded(record: tf.Tensor, built: Manifest, caption: str) -> Picture:
    """The picture of a record, its classes painted over it."""
    decoded = decode(record, built)
    image = tf.io.decode_image(
        decoded["image/encoded"],
        channels=3,
        expand_animations=False,
    )
    return Picture(
        image.numpy(),
        caption,
        classes=_classes(decoded),
    )


def as_trained(image: np.ndarray, labels: Any, number: int, built: Manifest) -> Picture:
    """One image of a training batch with the classes of its pixels."""
    classes = labels["masks"][number, ..., 0].numpy().astype(np.int32)
    outside = (classes < 0) | (classes > IGNORED)
    return Picture(
        image,
        "",
        classes=np.where(outside, IGNORED, classes),
    )


def _classes(decoded: dict[str, Any]) -> np.ndarray:
    mask = tf.io.decode_image(decoded["image/segmentation/class/encoded"], channels=1)
    return mask[..., 0].numpy()
