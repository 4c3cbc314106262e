"""What a model has found in one picture, in that picture's own pixels, from the tensors that it returned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from official.vision.ops import mask_ops

ROUNDING = 1e-3  # pixels that a scaled side may be off its whole number
MASK_THRESHOLD = 0.5  # as the official COCO evaluator's


@dataclass(frozen=True)
class Result:
    """What was found in one picture.

    Attributes:
        probabilities: of each class; of a classifier.
        boxes: (top, left, bottom, right) in pixels, the surest first; of a detector.
        scores: of the boxes.
        classes: of the boxes, from 0.
        masks: of the boxes, height x width of the picture, 0 or 1.
        pixels: the class of each, height x width of the picture; of a segmentation.
    """

    probabilities: np.ndarray | None = None
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    classes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    masks: np.ndarray | None = None
    pixels: np.ndarray | None = None

    def above(self, score: float) -> "Result":
        """The same with the boxes of at least that score alone."""
        kept = self.scores >= score
        masks = None if self.masks is None else self.masks[kept]
        return Result(
            self.probabilities,
            self.boxes[kept],
            self.scores[kept],
            self.classes[kept],
            masks,
            self.pixels,
        )


Outputs = Mapping[str, np.ndarray]  # a model's, for one picture
Size = tuple[int, int]  # a picture's height and width
# Takes, beside outputs and size, the shapes that the preprocessing noted.
Reading = Callable[[Outputs, np.ndarray | None, Size], Result]


def reading(kind: str, params: Any) -> Reading:
    """How the outputs of a run's model are read.

    Args:
        kind: name of the vision task.
        params: Model Garden's experiment configuration.
    """
    if kind == "classification":
        is_multilabel = params.task.validation_data.is_multilabel
        return _of_independent_classes if is_multilabel else _of_classes
    return of_objects if kind == "detection" else _of_pixels


def _of_classes(outputs: Outputs, info: Any, size: Any) -> Result:
    logits = np.asarray(outputs["logits"], np.float64)
    exponentials = np.exp(logits - logits.max())
    return Result(probabilities=exponentials / exponentials.sum())


def _of_independent_classes(outputs: Outputs, info: Any, size: Any) -> Result:
    return Result(probabilities=1 / (1 + np.exp(-np.asarray(outputs["logits"], np.float64))))


def of_objects(outputs: Outputs, info: np.ndarray | None, size: Size) -> Result:
    """Boxes and masks of a detector, in the picture's pixels."""
    assert info is not None
    count = int(outputs["num_detections"])
    scale = np.tile(info[2], 2)
    height, width = size
    boxes = outputs["detection_boxes"][:count] / scale
    masks = None
    if "detection_masks" in outputs:
        # A mask fills its whole box, what lies beside the picture too.
        masks = _pasted(outputs["detection_masks"][:count], boxes, size)
    inside = np.clip(boxes, 0, [height, width, height, width])
    return Result(
        boxes=inside.astype(np.float32),
        scores=np.asarray(outputs["detection_scores"][:count], np.float32),
        classes=outputs["detection_classes"][:count].astype(np.int64) - 1,
        masks=masks,
    )


def _pasted(masks: np.ndarray, boxes: np.ndarray, size: Size) -> np.ndarray:
    """The masks in their boxes put into the whole picture, by the official function."""
    height, width = size
    if not len(masks):
        return np.zeros((0, height, width), np.uint8)
    top, left, bottom, right = boxes.T
    corners_and_sides = np.stack([left, top, right - left, bottom - top], axis=1)
    pasted = mask_ops.paste_instance_masks(
        masks,
        corners_and_sides,
        height,
        width,
    )
    return (pasted > MASK_THRESHOLD).astype(np.uint8)


def _of_pixels(outputs: Outputs, info: np.ndarray | None, size: Size) -> Result:
    """The logits taken back to the picture's size, then the surest class of each pixel."""
    assert info is not None
    logits = tf.image.resize(
        outputs["logits"][None],
        [int(side) for side in info[1]],
    )
    return Result(pixels=classes_of_pixels(logits[0].numpy(), info, size))


def classes_of_pixels(logits: np.ndarray, info: np.ndarray, size: Size) -> np.ndarray:
    """Classes of a picture's pixels from logits of its padded, scaled copy."""
    # Where the aspect ratio is not kept, what was scaled is not the picture but one stretched to the input's size.
    rows, columns = np.ceil(info[0] * info[2] - ROUNDING).astype(int)
    inside = logits[:rows, :columns]
    return np.argmax(
        tf.image.resize(inside, size).numpy(),
        axis=-1,
    ).astype(np.uint8)
