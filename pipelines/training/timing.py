"""How long a network takes for one picture on this machine, with random weights: they cost what trained ones do."""

import inspect
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import tensorflow as tf
from official.core import task_factory

from pipelines.training import upstream
from pipelines.usage import UsageError

WARM_UP = 2
RUNS = 20
LONGEST_S = 5.0  # of all runs together


def forward_ms(params: Any) -> float:
    """Milliseconds of the median of some forward passes over one picture.

    Raises:
        UsageError: the experiment does not say how large its pictures are.
    """
    stated = getattr(params.task.model, "input_size", None)
    size = list(stated or [None])
    if None in size:
        raise UsageError("task.model.input_size: say the size of the pictures")
    upstream.expect_spare_features()
    task = task_factory.get_task(params.task)
    model = task.build_model()
    pictures = tf.random.stateless_uniform([1, *size], (0, 0))
    forward = _forward(model, size)
    once = tf.function(forward)
    for _ in range(WARM_UP):
        once(pictures)
    times: list[float] = []
    until = time.perf_counter() + LONGEST_S
    for _ in range(RUNS):
        start = time.perf_counter()
        if start > until and times:
            break
        _finish(once(pictures))
        spent = time.perf_counter() - start
        times.append(1000 * spent)
    return median(times)


def _forward(model: Any, size: list[int]) -> Callable[[tf.Tensor], Any]:
    """What is timed: of a detector of one stage all but the sorting of its boxes, which lasts as long as scores are close."""
    known = inspect.signature(model.call).parameters
    shape = tf.constant([size[:2]], tf.float32)
    shapes = {"image_shape": shape} if "image_shape" in known else {}

    def whole(pictures: tf.Tensor) -> Any:
        return model.call(pictures, training=False, **shapes)

    def one_stage(pictures: tf.Tensor) -> Any:
        features = model.backbone(pictures, training=False)
        if model.decoder:
            features = model.decoder(features, training=False)
        return model.head(features, training=False)

    finds_boxes = hasattr(model, "detection_generator")
    is_one_stage = finds_boxes and hasattr(model, "head")
    return one_stage if is_one_stage else whole


def _finish(returned: Any) -> None:
    """Waits until what was computed is there, on a device that works by itself."""
    for value in tf.nest.flatten(returned):
        if tf.is_tensor(value):
            value.numpy()
