"""Records of volumes, through the official decoder and parser of 3-D segmentation; their pictures are their slices."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from official.projects.volumetric_models.dataloaders import segmentation_input_3d

from pipelines.data.manifest import Manifest
from pipelines.data.preview import Picture
from pipelines.data.reading import segmentation
from pipelines.data.reading.video_classification import side_by_side

VOXELS = "volume/encoded"
WHERE = "volume/class/label"


def decode(record: tf.Tensor, built: Manifest) -> dict[str, Any]:
    """The encoded slices, their encoded classes, and the bytes of the voxels."""
    voxels = segmentation_input_3d.Decoder(VOXELS, WHERE).decode(record)
    return {**segmentation.decode(record, built), **voxels}


def problems(record: tf.Tensor, built: Manifest) -> list[str]:
    """What is wrong with a record, one line each."""
    lines = segmentation.problems(record, built)
    decoded = decode(record, built)
    voxels = len(decoded[VOXELS].numpy())
    classes = len(decoded[WHERE].numpy())
    if classes != voxels * len(built.labels):
        lines.append(f"{voxels} bytes of voxels, {classes} of {len(built.labels)} classes")
    return lines


def parser(built: Manifest) -> Callable[[tf.Tensor], Any]:
    """Model Garden's decoder and parser, one after the other, for the size that a record says."""
    decoder = segmentation_input_3d.Decoder(VOXELS, WHERE)
    sizes = {name: tf.io.FixedLenFeature([], tf.int64) for name in ("image/width", "image/depth")}

    def parse(record: tf.Tensor) -> Any:
        size = tf.io.parse_single_example(record, sizes)
        side = size["image/width"]
        official = segmentation_input_3d.Parser(
            [side, side, size["image/depth"]],
            len(built.labels),
            num_channels=1,
            image_field_key=VOXELS,
            label_field_key=WHERE,
        )
        return official.parse_fn(is_training=False)(decoder.decode(record))

    return parse


def as_decoded(record: tf.Tensor, built: Manifest, caption: str) -> Picture:
    """The slices of a record side by side, the classes of its voxels painted over them."""
    whole = segmentation.as_decoded(record, built, caption)
    assert whole.classes is not None
    return Picture(
        side_by_side(_parted(whole.image)),
        caption,
        classes=_sheet(_parted(whole.classes)),
    )


def as_trained(image: np.ndarray, labels: Any, number: int, built: Manifest) -> Picture:
    """The slices of one volume of a training batch with the classes of its voxels."""
    where = labels[number].numpy()
    classes = np.where(
        where.any(axis=-1),
        where.argmax(axis=-1),
        segmentation.IGNORED,
    )
    slices = np.moveaxis(image, 2, 0)
    colours = np.repeat(slices[..., :1], 3, axis=-1)
    return Picture(
        side_by_side(colours),
        "",
        classes=_sheet(np.moveaxis(classes, 2, 0)),
    )


def colours(batch: Any, data: Any) -> np.ndarray:
    """The greys, 0 to 255, of a training batch's volumes."""
    greys = batch.numpy().astype(np.float32) * 255
    return np.clip(greys.round(), 0, 255).astype(np.uint8)


def _parted(sheet: np.ndarray) -> np.ndarray:
    """The square slices of a picture that holds them one below the other."""
    width = sheet.shape[1]
    return sheet.reshape(
        -1,
        width,
        width,
        *sheet.shape[2:],
    )


def _sheet(classes: np.ndarray) -> np.ndarray:
    """The classes of slices side by side, as their picture has them."""
    painted = side_by_side(classes[..., None].astype(np.uint8))
    return painted[..., 0].astype(np.int32)
