"""How long a network takes for one picture on this machine, with random weights: they cost what trained ones do."""

import inspect
import time
from statistics import median
from typing import Any

import tensorflow as tf
from official.core import task_factory

from pipelines.usage import UsageError

WARM_UP = 3
RUNS = 20
LONGEST_S = 5.0  # of all runs together


def forward_ms(params: Any) -> float:
    """Milliseconds of the median of some forward passes over one picture, boxes sorted out where there are any.

    Raises:
        UsageError: the experiment does not say how large its pictures are.
    """
    size = list(getattr(params.task.model, "input_size", None) or [None])
    if None in size:
        raise UsageError("task.model.input_size: say the size of the pictures")
    task = task_factory.get_task(params.task)
    model = task.build_model()
    pictures = tf.random.stateless_uniform([1, *size], (0, 0))
    shape = tf.constant([size[:2]], tf.float32)
    known = inspect.signature(model.call).parameters
    wants_shape = "image_shape" in known
    shapes = {"image_shape": shape} if wants_shape else {}

    @tf.function
    def once(pictures: tf.Tensor) -> Any:
        return model.call(pictures, training=False, **shapes)

    for _ in range(WARM_UP):
        once(pictures)
    times: list[float] = []
    until = time.perf_counter() + LONGEST_S
    while len(times) < RUNS and time.perf_counter() < until:
        start = time.perf_counter()
        _finish(once(pictures))
        spent = time.perf_counter() - start
        times.append(1000 * spent)
    return median(times)


def _finish(returned: Any) -> None:
    """Waits until what was computed is there, on a device that works by itself."""
    for value in tf.nest.flatten(returned):
        if tf.is_tensor(value):
            value.numpy()
