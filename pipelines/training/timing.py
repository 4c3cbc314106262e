"""What one picture costs a network on this machine, with random weights: time and memory are those of trained ones."""

import contextlib
import ctypes
import gc
import inspect
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import tensorflow as tf
from official.core import task_factory

from pipelines.training import upstream
from pipelines.usage import UsageError

WARM_UP = 2
RUNS = 20
LONGEST_S = 5.0  # of all runs together


@dataclass(frozen=True)
class Cost:
    """Of one picture.

    Attributes:
        ms: the median of some forward passes.
        memory_mb: the most that was held while they ran, the weights too; None where the system does not tell.
    """

    ms: float
    memory_mb: int | None


def forward(params: Any) -> Cost:
    """Runs the network of an experiment over one picture; memory is right in a process that has run none before.

    Raises:
        UsageError: the experiment does not say how large its pictures are.
    """
    stated = getattr(params.task.model, "input_size", None)
    size = list(stated or [None])
    if None in size:
        raise UsageError("task.model.input_size: say the size of the pictures")
    upstream.expect_spare_features()
    tf.function(tf.square)(0.0)  # What TensorFlow allocates once is no network's.
    before = _held()
    task = task_factory.get_task(params.task)
    model = task.build_model()
    pictures = tf.random.stateless_uniform([1, *size], (0, 0))
    once = tf.function(_forward(model, size))
    for _ in range(WARM_UP):
        _finish(once(pictures))
    _held()
    times: list[float] = []
    until = time.perf_counter() + LONGEST_S
    for _ in range(RUNS):
        start = time.perf_counter()
        if start > until and times:
            break
        _finish(once(pictures))
        spent = time.perf_counter() - start
        times.append(1000 * spent)
    most = _memory("VmHWM")
    memory = None if before is None or most is None else round((most - before) / 1024)
    return Cost(median(times), memory)


def _held() -> int | None:
    """KiB that this process holds, when all is given back that is free; the most it held counts from here on."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # Only Linux with glibc has all three.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _memory("VmRSS")
    return None


def _memory(name: str) -> int | None:
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        return int(found[1]) if found else None
    return None


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
