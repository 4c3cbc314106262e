"""Records of boxes, with or without masks, through the official decoder and RetinaNet's parser."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from official.vision.dataloaders import retinanet_input, tf_example_decoder
from official.vision.ops import box_ops

from pipelines.data.manifest import Manifest
from pipelines.data.preview import Picture
from pipelines.data.reading import SIZE


def decode(record: tf.Tensor, built: Manifest) -> dict[str, Any]:
    """The decoded image, and the boxes, classes and masks of its objects."""
    return {name: value.numpy() for name, value in _decoder(built).decode(record).items()}


def _decoder(built: Manifest) -> tf_example_decoder.TfExampleDecoder:
    return tf_example_decoder.TfExampleDecoder(include_mask=built.has_masks)


def parser(built: Manifest) -> Callable[[tf.Tensor], Any]:
    """Model Garden's decoder and parser, one after the other."""
    decoder = _decoder(built)
    parse = retinanet_input.Parser(
        [SIZE, SIZE],
        min_level=3,
        max_level=5,
        num_scales=1,
        aspect_ratios=[1.0],
        anchor_size=4.0,
    ).parse_fn(is_training=False)
    return lambda record: parse(decoder.decode(record))


def problems(record: tf.Tensor, built: Manifest) -> list[str]:
    """What is wrong with a record, one line each."""
    decoded = decode(record, built)
    lines = _problems_of_boxes(decoded, len(built.labels))
    source_id = decoded["source_id"]
    if not source_id.isdigit():
        lines.append(f"source_id {source_id!r} is no number")
    shape = decoded["image"].shape
    height, width = decoded["height"], decoded["width"]
    if shape[:2] != (height, width):
        lines.append(f"height and width say {height}x{width}, the image is {shape}")
    count = len(decoded["groundtruth_classes"])
    if built.has_masks and count:
        masks = decoded["groundtruth_instance_masks"].shape
        if masks != (count, *shape[:2]):
            lines.append(f"masks have shape {masks}")
    return lines


def _problems_of_boxes(decoded: dict[str, Any], labels: int) -> list[str]:
    boxes = decoded["groundtruth_boxes"]
    classes = decoded["groundtruth_classes"]
    lines = []
    if len(boxes) != len(classes):
        lines.append(f"{len(boxes)} boxes, {len(classes)} classes")
    if np.any(~((boxes >= 0) & (boxes <= 1))):
        lines.append("a box leaves the image")
    if np.any(~(boxes[:, :2] < boxes[:, 2:])):
        lines.append("a box has no area")
    if np.any((classes < 1) | (classes > labels)):
        lines.append(f"a class is outside 1 to {labels}")
    return lines


def as_decoded(record: tf.Tensor, built: Manifest, caption: str) -> Picture:
    """The picture of a record with its objects drawn over it."""
    decoded = decode(record, built)
    height, width = decoded["image"].shape[:2]
    boxes = decoded["groundtruth_boxes"] * [height, width, height, width]
    labels = [int(label) - 1 for label in decoded["groundtruth_classes"]]
    masks = decoded["groundtruth_instance_masks"] if built.has_masks else ()
    return Picture(
        decoded["image"],
        caption,
        boxes,
        labels,
        masks,
    )


def as_trained(image: np.ndarray, labels: Any, number: int, built: Manifest) -> Picture:
    """One image of a training batch with the objects that its targets stand for."""
    if "gt_boxes" in labels:
        boxes, classes = _given_boxes(labels, number)
    else:
        boxes, classes = _boxes_of_anchors(labels, number)
    shown = [int(label) - 1 for label in classes]
    return Picture(
        image,
        f"{len(boxes)} objects to learn",
        boxes,
        shown,
    )


def _given_boxes(labels: Any, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and classes of a model with proposals, which learns from the boxes themselves."""
    classes = labels["gt_classes"][number].numpy()
    boxes = labels["gt_boxes"][number].numpy()
    real = classes > 0  # The rest fills the batch up.
    return boxes[real], classes[real]


def _boxes_of_anchors(labels: Any, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and classes that the anchors of a one-stage model are to learn."""
    objects: dict[tuple[int, ...], int] = {}
    for level, targets in labels["cls_targets"].items():
        classes = tf.reshape(targets[number], [-1]).numpy()
        offsets = tf.reshape(labels["box_targets"][level][number], [-1, 4])
        anchors = tf.reshape(labels["anchor_boxes"][level][number], [-1, 4])
        boxes = box_ops.decode_boxes(offsets, anchors).numpy()
        for anchor in np.flatnonzero(classes > 0):
            corners = tuple(round(float(value)) for value in boxes[anchor])
            objects[corners] = int(classes[anchor])  # Many anchors learn one box.
    boxes = np.array(list(objects), np.float32).reshape(-1, 4)
    return boxes, np.array(list(objects.values()), np.int64)
