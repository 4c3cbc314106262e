"""Whether an exported file answers as the checkpoint does: image by image, and by the figure of the official evaluator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.shipping.formats import FLOAT32

SURE = 0.05  # boxes that are less sure change places with every rounding
SAME_IOU = 0.99
SAME_MASK = 0.95  # IoU of two masks as the network says them, 28 pixels wide
MASK_THRESHOLD = 0.5


@dataclass(frozen=True)
class Limits:
    """How far an exported file may be from its checkpoint.

    Attributes:
        drop: of the figure, as a fraction; where it rises there is no limit.
        agreement: the least share of the same classes or boxes; None: as may be.
        change: whether a rise counts as well.
    """

    drop: float
    agreement: float | None = None
    change: bool = False


def limits(form: str, kind: str) -> Limits:
    """The limits of a format for a vision task."""
    if form in FLOAT32:
        return Limits(0.001, 0.999, change=True)
    if form == "tflite_fp16":
        return Limits(0.003, change=True)
    return Limits(0.01 if kind == "classification" else 0.02)


Forward = Callable[[tf.Tensor, Mapping[str, Any]], Mapping[str, Any]]


@dataclass
class Watched:
    """Passes batches on, and keeps what was answered of every image."""

    kind: str
    forward: Forward
    answers: list[Any] = field(default_factory=list)

    def __call__(self, images: tf.Tensor, shapes: Mapping[str, Any]) -> Mapping[str, Any]:
        """What `forward` says."""
        outputs = self.forward(images, shapes)
        side = images.shape[1:3]
        for number in range(len(images)):
            self.answers.append(kept(self.kind, outputs, number, side))
        return outputs


def kept(kind: str, outputs: Mapping[str, Any], number: int, side: Any) -> Any:
    """What is compared of an image: a class, boxes, or the classes of its pixels.

    Args:
        side: height and width of the images.
    """
    if kind == "detection":
        count = int(outputs["num_detections"][number])
        names = [
            "detection_boxes",
            "detection_scores",
            "detection_classes",
        ]
        parts = [np.asarray(outputs[name][number][:count]) for name in names]
        if "detection_masks" in outputs:
            parts.append(np.asarray(outputs["detection_masks"][number][:count]) > MASK_THRESHOLD)
        return tuple(parts)
    logits = outputs["logits"][number]
    if kind == "segmentation":
        logits = tf.image.resize(logits, side)
    return np.argmax(np.asarray(logits), axis=-1).astype(np.int32)


def agreement(kind: str, reference: list[Any], exported: list[Any]) -> list[tuple[int, int]]:
    """Of every image, how many answers are the same, and of how many."""
    pairs = zip(reference, exported, strict=True)
    if kind == "detection":
        return [_same_boxes(before, after) for before, after in pairs]
    counts = []
    for before, after in pairs:
        same = np.count_nonzero(before == after)
        counts.append((int(same), int(before.size)))
    return counts


def _same_boxes(before: Any, after: Any) -> tuple[int, int]:
    """How many of the sure boxes, and their masks, are among the others, and how many there are."""
    boxes, scores, classes, *masks = before
    others, _, other_classes, *other_masks = after
    sure = np.flatnonzero(scores >= SURE)
    same = 0
    for number in sure:
        is_same = other_classes == classes[number]
        is_same &= _ious(boxes[number], others) >= SAME_IOU
        if masks:
            is_same &= _mask_ious(masks[0][number], other_masks[0]) >= SAME_MASK
        same += bool(is_same.any())
    return same, len(sure)


def _mask_ious(mask: np.ndarray, others: np.ndarray) -> np.ndarray:
    inside = np.count_nonzero(others & mask, axis=(1, 2))
    either = np.count_nonzero(others | mask, axis=(1, 2))
    return np.where(either, inside / np.maximum(either, 1), 1.0)


def _ious(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    corner = np.maximum(box[:2], others[:, :2])
    opposite = np.minimum(box[2:], others[:, 2:])
    inside = np.prod(np.maximum(opposite - corner, 0), axis=1)
    area = np.prod(box[2:] - box[:2])
    areas = np.prod(
        others[:, 2:] - others[:, :2],
        axis=1,
    )
    return inside / np.maximum(area + areas - inside, 1e-9)


def share(counts: list[tuple[int, int]]) -> float:
    """The share of all answers that are the same; 1 where there are none."""
    same = sum(count for count, _ in counts)
    total = sum(count for _, count in counts)
    return same / total if total else 1.0


def verdict(limits: Limits, before: float, after: float, shared: float) -> str:
    """Why a file is refused; empty where it is within its limits."""
    change = after - before
    if change < -limits.drop or (limits.change and change > limits.drop):
        return (
            f"the figure goes from {before:.4f} to {after:.4f}, by {100 * change:+.2f} points; "
            f"{100 * limits.drop:.1f} are allowed"
        )
    if limits.agreement is not None and shared < limits.agreement:
        return (
            f"{shared:.3%} of the answers are the checkpoint's; {limits.agreement:.1%} are demanded"
        )
    return ""
