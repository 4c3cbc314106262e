"""Records of classes, through the official decoder and parser of image classification."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from official.vision.dataloaders import classification_input

from pipelines.data.manifest import Manifest
from pipelines.data.preview import Picture
from pipelines.data.reading import SIZE


def decode(record: tf.Tensor, built: Manifest) -> dict[str, Any]:
    """The encoded image and the label of a record."""
    return classification_input.Decoder().decode(record)


def parser(built: Manifest) -> Callable[[tf.Tensor], Any]:
    """Model Garden's decoder and parser, one after the other."""
    decoder = classification_input.Decoder()
    parse = classification_input.Parser(
        [SIZE, SIZE],
        len(built.labels),
        decode_jpeg_only=set(built.formats) <= {"jpeg"},
    ).parse_fn(is_training=False)
    return lambda record: parse(decoder.decode(record))


def problems(record: tf.Tensor, built: Manifest) -> list[str]:
    """What is wrong with a record, one line each."""
    label = int(decode(record, built)["image/class/label"])
    if 0 <= label < len(built.labels):
        return []
    return [f"label {label} of {len(built.labels)} classes"]


def as_decoded(record: tf.Tensor, built: Manifest, caption: str) -> Picture:
    """The picture of a record, its class in front of the caption."""
    decoded = decode(record, built)
    label = built.labels[int(decoded["image/class/label"])]
    image = tf.io.decode_image(
        decoded["image/encoded"],
        channels=3,
        expand_animations=False,
    )
    return Picture(image.numpy(), f"{label}   {caption}")


def as_trained(image: np.ndarray, labels: Any, number: int, built: Manifest) -> Picture:
    """One image of a training batch under the class that it counts most for."""
    target = labels[number].numpy()
    label = target.argmax() if target.ndim else target  # one number, or one for each class
    return Picture(image, built.labels[int(label)])
