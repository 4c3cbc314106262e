"""What is kept of every image gives the official figures again, and nothing of the official evaluation changes."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from official.core import task_factory
from official.vision.configs import semantic_segmentation as config
from official.vision.evaluation import coco_evaluator, segmentation_metrics

from pipelines import outcomes
from pipelines.training import upstream, witness

CLASSES = 3
RANDOM = np.random.default_rng(4)


class Evaluating:
    """A detector's task, as far as an evaluation needs it: COCO's evaluator, and nothing of a model."""

    task_config = SimpleNamespace(model=SimpleNamespace(num_classes=CLASSES))

    def __init__(self) -> None:
        self.metric = coco_evaluator.COCOEvaluator(None, False, need_rescale_bboxes=False)

    def reduce_aggregated_logs(self, logs=None, global_step=None):
        return self.metric.result()


def boxes(images: int, each: int) -> np.ndarray:
    corner = RANDOM.uniform(0, 60, (images, each, 2))
    return np.concatenate([corner, corner + RANDOM.uniform(10, 40, corner.shape)], axis=-1)


def labels(images: int, each: int) -> dict[str, np.ndarray]:
    places = boxes(images, each).astype(np.float32)
    return {
        "source_id": np.arange(images) + 7,
        "height": np.full(images, 100),
        "width": np.full(images, 100),
        "num_detections": np.full(images, each),
        "boxes": places,
        "classes": RANDOM.integers(1, CLASSES, (images, each)),
        "is_crowds": np.zeros((images, each), np.int32),
        "areas": np.prod(places[..., 2:] - places[..., :2], axis=-1),
    }


def answers(truth: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    images, each = truth["classes"].shape
    moved = truth["boxes"] + RANDOM.normal(0, 3, truth["boxes"].shape)
    lost = RANDOM.random((images, each)) < 0.2
    return {
        "source_id": truth["source_id"],
        "num_detections": truth["num_detections"],
        "detection_boxes": moved.astype(np.float32),
        "detection_scores": RANDOM.uniform(0.2, 1, (images, each)).astype(np.float32),
        "detection_classes": np.where(lost, CLASSES - truth["classes"], truth["classes"]),
    }


def update(metric, truth, found, chosen=slice(None)) -> None:
    metric.update_state(
        {name: tf.constant(values[chosen]) for name, values in truth.items()},
        {name: tf.constant(values[chosen]) for name, values in found.items()},
    )


def test_boxes_give_cocos_figure_again_and_that_of_a_choice_of_images(capsys):
    truth = labels(9, 6)
    task = Evaluating()
    watching = witness.Witness(task)
    watching.begin()
    found = answers(truth)
    update(task.metric, truth, found)
    official = task.reduce_aggregated_logs()
    kept = watching.found()["AP"]
    assert kept.images == 9 and 0.05 < official["AP"] < 0.95
    assert kept.figure() == pytest.approx(float(official["AP"]), abs=1e-6)
    chosen = np.array([1, 4, 5])
    update(task.metric, truth, found, chosen)
    assert kept.figure(chosen) == pytest.approx(float(task.metric.result()["AP"]), abs=1e-6)
    assert kept.figure(np.repeat(np.arange(9), 2)) == pytest.approx(kept.figure(), abs=0.02)


def segmenting(classes: int):
    task = task_factory.get_task(config.SemanticSegmentationTask(model={"num_classes": classes}))
    task.iou_metric = segmentation_metrics.PerClassIoU(classes)
    task.inference_step = lambda features, model: features
    task.build_losses = lambda **_: tf.constant(0.0)
    return task


def test_pixels_give_the_official_figure_again_while_it_is_traced():
    task = segmenting(CLASSES)
    watching = witness.Witness(task)
    watching.begin()
    step = tf.function(lambda *inputs: task.validation_step(inputs, SimpleNamespace(losses=[])))
    state = None
    for images in (2, 4, 2):
        masks = RANDOM.integers(0, CLASSES, (images, 16, 16, 1))
        logits = tf.constant(RANDOM.normal(size=(images, 8, 8, CLASSES)), tf.float32)
        truth = {
            "masks": tf.constant(masks, tf.float32),
            "valid_masks": tf.constant(RANDOM.random(masks.shape) < 0.9),
            "image_info": tf.ones([images, 4, 2]),
        }
        logs = tf.nest.map_structure(lambda values: (values,), step(logits, truth))
        state = task.aggregate_logs(state, logs)
    official = float(task.reduce_aggregated_logs(state)["mean_iou"])
    kept = watching.found()["mean_iou"]
    assert kept.images == 8 and 0 < official < 1
    assert kept.figure() == pytest.approx(official, abs=1e-6)
    # The official task resets its metric after the first batch.
    assert kept.figure(np.arange(2, 8)) == pytest.approx(official, abs=1e-6)
    assert kept.figure(np.array([7])) != pytest.approx(official, abs=1e-6)


def test_an_evaluation_that_says_no_classes_goes_on_as_it_is_and_leaves_nothing():
    task = segmenting(CLASSES)
    task.validation_step = lambda inputs, model: {"loss": tf.reduce_sum(inputs[0])}
    task.aggregate_logs = lambda state, logs: [*(state or ()), logs["loss"]]
    watching = witness.Witness(task)
    watching.begin()
    step = tf.function(lambda *inputs: task.validation_step(inputs, None))
    state = None
    for value in (2.0, 3.0):
        state = task.aggregate_logs(state, step(tf.constant([value]), tf.constant([0])))
    assert [float(loss) for loss in state] == [2.0, 3.0]
    assert watching.found() == {}


def test_a_file_is_read_as_it_was_written_and_one_that_is_none_is_nothing(tmp_path):
    truth = np.array([0, 1, 2, 1], np.int32)
    answer = np.array([0, 1, 1, 1], np.int32)
    kept = outcomes.Classes(truth, answer, np.full(4, 0.5, np.float32))
    file = tmp_path / outcomes.FILE
    file.write_bytes(outcomes.packed(5, {"accuracy": kept}))
    again = outcomes.read(file)["accuracy"]
    assert again.figure() == 0.75 and again.figure(np.array([2, 2, 3, 3])) == 0.5
    assert again.images == 4 and again.identity == kept.identity
    file.write_bytes(b"torn")
    assert outcomes.read(file) == outcomes.read(tmp_path / "none") == {}


def test_what_is_noted_on_the_way_is_put_back():
    owner = SimpleNamespace(double=lambda number: 2 * number)
    official = owner.double
    with upstream.noted(owner, "double") as returned:
        assert owner.double(3) == 6
    assert returned == [6] and owner.double is official
