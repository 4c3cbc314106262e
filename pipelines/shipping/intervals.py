"""The interval of a figure's change: both models on the same images, drawn again and again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

DRAWS = 1000
LEVEL = 95  # percent
SEED = 0


def interval(
    change: Callable[[np.ndarray], float],
    images: int,
    draws: int = DRAWS,
) -> list[float]:
    """The middle 95 % of a change over draws of images, with their return.

    Args:
        change: of the images with these numbers.
    """
    generator = np.random.default_rng(SEED)
    changes = []
    for _ in range(draws):
        drawn = generator.integers(images, size=images)
        changes.append(change(drawn))
    outside = (100 - LEVEL) / 2
    low, high = np.percentile(changes, [outside, 100 - outside])
    return [float(low), float(high)]


def of_classes(
    labels: Sequence[int],
    before: Sequence[Any],
    after: Sequence[Any],
) -> list[float]:
    """The interval of a change of accuracy."""
    truth = np.asarray(labels)
    gained = (np.asarray(after) == truth).astype(int)
    lost = (np.asarray(before) == truth).astype(int)
    difference = gained - lost
    return interval(lambda drawn: float(difference[drawn].mean()), len(truth))


def of_pixels(
    labels: Sequence[np.ndarray],
    before: Sequence[Any],
    after: Sequence[Any],
    classes: int,
) -> list[float]:
    """The interval of a change of mean IoU; 255 is left out.

    Args:
        labels: classes of the pixels, of the answers' size.
    """
    tables = []
    for answers in (before, after):
        pairs = zip(labels, answers, strict=True)
        tables.append(np.stack([_table(truth, answer, classes) for truth, answer in pairs]))
    first, second = tables

    def change(drawn: np.ndarray) -> float:
        return _mean_iou(second[drawn]) - _mean_iou(first[drawn])

    return interval(change, len(labels), draws=200)


def _table(truth: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    counted = truth < classes
    places = truth[counted].astype(int) * classes + answer[counted]
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


def _mean_iou(tables: np.ndarray) -> float:
    table = tables.sum(axis=0)
    hit = np.diag(table)
    union = table.sum(axis=0) + table.sum(axis=1) - hit
    present = union > 0
    return float((hit[present] / union[present]).mean())


def of_boxes(truths: Sequence[Mapping[str, Any]], before: Any, after: Any) -> list[float]:
    """The interval of a change of COCO's AP over IoU .5 to .95.

    Args:
        truths: of each image, `boxes` (top, left, bottom, right), `classes` and `is_crowd`.
        before: boxes, scores and classes of each image, in the pixels of its truth.
    """
    from pipelines.shipping.precision import Matched  # pycocotools, where boxes are compared.

    first = Matched(truths, before)
    second = Matched(truths, after)

    def change(drawn: np.ndarray) -> float:
        return second.precision(drawn) - first.precision(drawn)

    return interval(change, len(truths), draws=100)
