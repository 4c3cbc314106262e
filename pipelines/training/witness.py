"""Keeps what the official evaluation found in every image, on its way to the official figures, which stay as they are."""

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from official.vision.evaluation import segmentation_metrics
from official.vision.tasks import (
    image_classification,
    semantic_segmentation,
    video_classification,
)

from pipelines import outcomes
from pipelines.outcomes import Classes, Objects, Outcomes, Pixels
from pipelines.system import durable
from pipelines.training import upstream

KEY = "outcomes"  # what is kept of a batch, among the logs of its step
OBJECTS = {"bbox": "AP", "segm": "mask_AP"}  # the official figures of what COCO's evaluator matches

# From the labels of a batch and what was said of it to what is kept.
Kept = Callable[[Any, Any], dict[str, tf.Tensor]]


class Witness:
    """Looks on while a task evaluates."""

    def __init__(self, task: Any) -> None:
        """Puts itself around methods of the task, before its evaluation is traced."""
        self._batches: list[dict[str, np.ndarray]] = []
        self._objects: dict[str, Outcomes] = {}
        # Video models state none.
        self._classes = getattr(task.task_config.model, "num_classes", 0)
        if isinstance(task, image_classification.ImageClassificationTask):
            if not task.task_config.train_data.is_multilabel:
                self._follow(task, (task, "inference_step"), _classes_of)
        elif isinstance(task, video_classification.VideoClassificationTask):
            if not task.task_config.train_data.is_multilabel:
                self._follow(task, (task, "inference_step"), _classes_of_clips)
        elif isinstance(task, semantic_segmentation.SemanticSegmentationTask):
            self._follow(task, (segmentation_metrics, "preprocess_inputs"), _pixels_of)
        else:
            self._match(task)

    def _follow(self, task: Any, source: tuple[Any, str], kept_of: Kept) -> None:
        """Sends what was said of a batch along with its logs, and takes it out of them.

        Args:
            source: the function that returns it, by owner and name.
        """
        step, aggregate = task.validation_step, task.aggregate_logs

        @upstream.plain
        @functools.wraps(step)
        def validation_step(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            with upstream.noted(*source) as returned:
                logs = upstream.converted(step)(inputs, *args, **kwargs)
            # A pretraining on clips is evaluated without saying what is on them.
            return {**logs, KEY: kept_of(inputs[1], returned[-1])} if returned else logs

        def aggregate_logs(state: Any = None, step_outputs: Any = None) -> Any:
            logs = dict(step_outputs)
            kept = logs.pop(KEY, None)
            if kept is None:
                return aggregate(state, logs)
            batch = {name: _whole(replicas) for name, replicas in kept.items()}
            if "valid" in batch:
                batch = _counted(batch, self._classes)
                if state is None:
                    batch = _forgotten(batch)
            self._batches.append(batch)
            return aggregate(state, logs)

        task.validation_step, task.aggregate_logs = validation_step, aggregate_logs

    def _match(self, task: Any) -> None:
        """Reads off COCO's evaluator what it has matched."""
        reduce = task.reduce_aggregated_logs

        @functools.wraps(reduce)
        def reduce_aggregated_logs(*args: Any, **kwargs: Any) -> Any:
            with upstream.accumulated() as evaluations:
                logs = reduce(*args, **kwargs)
            for evaluation in evaluations:
                name = OBJECTS.get(evaluation.params.iouType)
                if name:
                    self._objects[name] = _objects_of(evaluation)
            return logs

        task.reduce_aggregated_logs = reduce_aggregated_logs

    def begin(self) -> None:
        """Forgets: an evaluation begins."""
        self._batches.clear()
        self._objects.clear()

    def found(self) -> dict[str, Outcomes]:
        """What the evaluation found, by the name of the official figure; nothing of a task that is not followed."""
        if not self._batches:
            return dict(self._objects)
        if "place" in self._batches[0]:
            return {"mean_iou": _pixels(self._batches, self._classes)}
        return {"accuracy": Classes(**_joined(self._batches))}

    def write(self, file: Path, step: int) -> None:
        """Writes the file of an evaluation, whole or not at all."""
        found = self.found()
        if found:
            file.parent.mkdir(parents=True, exist_ok=True)
            durable.write_whole(file, outcomes.packed(step, found))


def _whole(parts: Iterable[Any]) -> np.ndarray:
    return np.concatenate([np.asarray(part) for part in parts])


def _joined(batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    joined = {}
    for name in batches[0]:
        joined[name] = _whole(batch[name] for batch in batches)
    return joined


def _classes_of(labels: Any, outputs: Any) -> dict[str, tf.Tensor]:
    """The label of every image of a batch, the surest class, and its probability."""
    logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs
    truth = tf.argmax(labels, axis=-1) if labels.shape.rank > 1 else tf.reshape(labels, [-1])
    probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))
    return {
        "truth": tf.cast(truth, tf.int32),
        "answer": tf.argmax(logits, axis=-1, output_type=tf.int32),
        "score": tf.reduce_max(probabilities, axis=-1),
    }


def _classes_of_clips(labels: Any, probabilities: Any) -> dict[str, tf.Tensor]:
    """As `_classes_of`, of a task that says probabilities where others say logits."""
    return _classes_of(labels, tf.math.log(probabilities))


def _pixels_of(labels: Any, compared: Any) -> dict[str, tf.Tensor]:
    """The classes that the official metric compares, pixel by pixel."""
    logits, truth, valid = compared
    return {
        "truth": tf.cast(truth[..., 0], tf.int32),
        "answer": tf.cast(tf.argmax(logits, axis=3), tf.int32),
        "valid": valid[..., 0],
    }


def _counted(batch: Mapping[str, np.ndarray], classes: int) -> dict[str, np.ndarray]:
    """The pairs of classes that occur in each image of a batch, with their counts."""
    rows = []
    for truth, answer, valid in zip(batch["truth"], batch["answer"], batch["valid"], strict=True):
        places = truth[valid] * classes + answer[valid]
        rows.append(np.bincount(places, minlength=classes**2))
    image, place = np.nonzero(rows)
    return {
        "images": np.array([len(rows)]),
        "image": image,
        "place": place,
        "count": np.array(rows)[image, place],
    }


def _forgotten(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first batch of pixels: the official task resets its metric after it, so that the figure is without it."""
    return {**batch, "count": np.zeros_like(batch["count"])}


def _pixels(batches: list[dict[str, np.ndarray]], classes: int) -> Pixels:
    images = 0
    numbers = []
    for batch in batches:
        numbers.append(batch["image"] + images)
        images += int(batch["images"][0])
    place = _whole(batch["place"] for batch in batches)
    return Pixels(
        size=np.array([images, classes]),
        image=_whole(numbers).astype(np.int32),
        truth=(place // classes).astype(np.int16),
        answer=(place % classes).astype(np.int16),
        count=_whole(batch["count"] for batch in batches).astype(np.int32),
    )


def _objects_of(evaluation: Any) -> Objects:
    """What COCO's evaluator matched over objects of all sizes."""
    params = evaluation.params
    images = list(params.imgIds)
    ids = np.array(sorted(evaluation.cocoGt.getImgIds()), np.int64)
    numbers = np.searchsorted(ids, images)
    areas = len(params.areaRng)
    wanted = [np.zeros((0, 3), np.int32)]
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("image", "category", "score")}
    bits: dict[str, list[np.ndarray]] = {"matched": [], "ignored": []}
    for category in range(len(params.catIds)):
        first = category * areas * len(images)
        for number, entry in zip(numbers, evaluation.evalImgs[first:], strict=False):
            if entry is None:
                continue
            count = int(np.sum(np.asarray(entry["gtIgnore"]) == 0))
            wanted.append(np.array([[category, number, count]], np.int32))
            scores = np.asarray(entry["dtScores"], np.float32)
            rows["score"].append(scores)
            rows["image"].append(np.full(len(scores), number, np.int32))
            rows["category"].append(np.full(len(scores), category, np.int16))
            bits["matched"].append(_bits(entry["dtMatches"]))
            bits["ignored"].append(_bits(entry["dtIgnore"]))
    empty = np.zeros(0, np.int32)
    joined = {name: np.concatenate([empty, *parts]) for name, parts in {**rows, **bits}.items()}
    return Objects(ids=ids, wanted=np.concatenate(wanted), **joined)


def _bits(table: Any) -> np.ndarray:
    """A number for each column whose bits are its rows."""
    rows = np.asarray(table) != 0
    return (1 << np.arange(len(rows))) @ rows.astype(np.int32)
