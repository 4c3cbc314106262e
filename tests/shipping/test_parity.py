"""When an exported file counts as the checkpoint's equal: seen to refuse what differs, and to pass what does not."""

import numpy as np
import pytest

from pipelines.outcomes import Classes
from pipelines.shipping import parity, proof


def found(*boxes: list[float], scores=None, classes=None):
    count = len(boxes)
    return (
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores or [0.9] * count),
        np.array(classes or [1] * count),
    )


def test_a_box_is_the_same_only_with_its_class_and_at_its_place():
    box = [10.0, 10.0, 110.0, 110.0]
    moved = [12.0, 10.0, 112.0, 110.0]
    before = [found(box)]
    assert parity.agreement("detection", before, [found(moved, box)]) == [(1, 1)]
    assert parity.agreement("detection", before, [found(moved)]) == [(0, 1)]
    assert parity.agreement("detection", before, [found(box, classes=[2])]) == [(0, 1)]
    assert parity.agreement("detection", before, [found()]) == [(0, 1)]
    unsure = [found(box, scores=[0.01])]
    assert parity.agreement("detection", unsure, [found()]) == [(0, 0)]


def test_pixels_and_classes_are_counted_one_by_one():
    before = [np.array([[0, 1], [1, 1]])]
    after = [np.array([[0, 1], [2, 1]])]
    assert parity.share(parity.agreement("segmentation", before, after)) == 0.75
    assert parity.share(parity.agreement("classification", [np.int32(3)], [np.int32(3)])) == 1


@pytest.mark.parametrize(
    ("form", "kind", "after", "shared", "passes"),
    [
        ("tflite", "classification", 0.9, 1.0, True),
        ("tflite", "classification", 0.902, 1.0, False),  # better is no parity either
        ("tflite", "classification", 0.898, 1.0, False),
        ("tflite", "detection", 0.9, 0.998, False),
        ("tflite_fp16", "detection", 0.898, 0.5, True),
        ("tflite_fp16", "detection", 0.896, 1.0, False),
        ("tflite_int8", "classification", 0.891, 0.5, True),
        ("tflite_int8", "classification", 0.889, 1.0, False),
        ("tflite_int8", "detection", 0.881, 0.5, True),
        ("tflite_int8", "segmentation", 0.879, 1.0, False),
    ],
)
def test_the_limits_of_each_format(form, kind, after, shared, passes):
    trouble = parity.verdict(parity.limits(form, kind), 0.9, after, shared)
    assert (trouble == "") == passes


def test_the_interval_of_a_change_holds_the_change_and_is_nothing_for_equal_answers():
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 3, 200)
    before = evaluated(truth, np.where(generator.random(200) < 0.9, truth, 0))
    after = evaluated(truth, np.where(generator.random(200) < 0.8, truth, 0))
    row = proof.row("tflite_int8", "classification", "accuracy", reference=before, exported=after)
    low, high = row["interval"]
    assert low < row["change"] < high < 0
    assert "refused: the figure goes from" in row["status"]
    row = proof.row("tflite", "classification", "accuracy", reference=before, exported=before)
    assert row["interval"] == [0.0, 0.0] and row["status"] == "ok"
    others = evaluated(truth[::-1].copy(), truth)
    row = proof.row("tflite", "classification", "accuracy", reference=before, exported=others)
    assert row["interval"] is None


def evaluated(truth: np.ndarray, answer: np.ndarray) -> proof.Evaluated:
    classes = Classes(truth, answer, np.ones(len(truth)))
    return proof.Evaluated({"accuracy": classes.figure()}, list(answer), {"accuracy": classes})


def test_a_mask_is_the_same_only_with_its_box():
    box = [10.0, 10.0, 110.0, 110.0]
    masks = np.zeros((1, 28, 28), bool)
    masks[0, :20] = True
    fewer = masks.copy()
    fewer[0, 10:] = False
    before = [(*found(box), masks)]
    assert parity.agreement("detection", before, before) == [(1, 1)]
    assert parity.agreement("detection", before, [(*found(box), fewer)]) == [(0, 1)]
