"""The flight recorder: a cheap fingerprint of every training step, so that two runs can be laid side by side.

One line of JSON a step in `flight.jsonl`: `order` (checksum over the batch's records), `inputs` (over the tensors that the step was
given, augmentation done), `loss`, `gradient` (its norm), and, at step 0 and at every checkpoint, `variables` (digest over all
that the model's output depends on).
"""

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.system import durable
from pipelines.training import upstream
from pipelines.training.exact.order import Stream

FILE = "flight.jsonl"


class Flight:
    """Records the steps of one run; create it inside the strategy's scope.

    Args:
        block: most steps between two calls of `write`.
        stream: whose order of the data is noted, where the input follows one.
    """

    def __init__(self, file: Path, block: int, stream: Stream | None) -> None:
        self._file = file
        self._block = block
        self._stream = stream
        self._local = threading.local()  # Replicas are traced in threads.
        self._inputs = _row_for_each_step(tf.zeros([block], tf.int32), "flight_inputs")
        self._figures = _row_for_each_step(tf.zeros([block, 2]), "flight_figures")

    def attach(self, task: Any, optimizer: Any, step: tf.Variable) -> None:
        """Watches a task's training steps and the gradients that they apply."""
        optimizer.apply_gradients = self._watched_gradients(optimizer.apply_gradients)
        task.train_step = self._watched_step(task.train_step, task.loss, step)

    def _watched_gradients(self, apply_gradients: Callable[..., Any]) -> Callable[..., Any]:
        @upstream.plain
        @functools.wraps(apply_gradients)
        def watched(pairs: Any, *args: Any, **kwargs: Any) -> Any:
            pairs = list(pairs)
            gradients = [gradient for gradient, _ in pairs if gradient is not None]
            tensors = [tf.convert_to_tensor(gradient) for gradient in gradients]
            floats = [tf.cast(tensor, tf.float32) for tensor in tensors]
            self._local.norm = tf.linalg.global_norm(floats)
            return upstream.converted(apply_gradients)(pairs, *args, **kwargs)

        return watched

    def _watched_step(
        self, train_step: Callable[..., Any], loss: str, step: tf.Variable
    ) -> Callable[..., Any]:
        @upstream.plain
        @functools.wraps(train_step)
        def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            row = tf.cast(step, tf.int64) % self._block
            row = tf.cast(row, tf.int32)
            checksum = fingerprint(inputs)
            logs = upstream.converted(train_step)(inputs, *args, **kwargs)
            mean = tf.cast(tf.reduce_mean(logs[loss]), tf.float32)
            figures = tf.stack([mean, self._local.norm])
            _put(self._inputs, row, checksum)
            _put(self._figures, row, figures)
            return logs

        return watched

    def begin(self, step: int, weights: Callable[[], str]) -> None:
        """Drops what an earlier start wrote beyond `step`, from which this one resumes; a new run notes its first weights."""
        if step:
            lines = [line for line, _ in durable.read_lines(self._file)]
            earlier = [line for line in lines if line["step"] <= step]
        else:
            earlier = [{"step": 0, "variables": weights()}]
        durable.write_whole(self._file, durable.as_lines(*earlier))

    def write(self, first: int, last: int, weights: Callable[[], str] | None) -> np.ndarray:
        """Writes steps `first` + 1 to `last`, `variables` with the last of them; returns their losses, float32 of shape [steps]."""
        rows = np.arange(first, last) % self._block
        checksums = self._inputs.numpy()[rows]
        figures = self._figures.numpy()[rows]
        digests = self._stream.digests if self._stream else {}
        lines = []
        for number, checksum in enumerate(checksums):
            loss, norm = figures[number]
            line = {
                "step": first + number + 1,
                "inputs": f"{int(checksum) & 0xFFFFFFFF:08x}",
                "loss": float(loss),
                "gradient": float(norm),
            }
            if first + number in digests:
                order = digests.pop(first + number)
                line["order"] = f"{order:08x}"
            lines.append(line)
        if weights and lines:
            lines[-1]["variables"] = weights()
        durable.append(self._file, durable.as_lines(*lines))
        return figures[:, 0]


def _row_for_each_step(zeros: tf.Tensor, name: str) -> tf.Variable:
    return tf.Variable(
        zeros,
        name=name,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )


def fingerprint(inputs: Any) -> tf.Tensor:
    """Checksum over the bits of a nest of tensors and their positions, int32 scalar; strings are left out."""
    total = tf.zeros([], tf.int32)
    for number, tensor in enumerate(tf.nest.flatten(inputs)):
        if not isinstance(tensor, tf.Tensor):
            continue
        if tensor.dtype in (tf.string, tf.variant, tf.resource):
            continue
        count = tf.shape(tensor)[0] if tensor.shape.rank else 1
        bits = tf.reshape(_bits(tensor), [count, -1])
        rows = tf.range(tf.shape(bits)[0])
        columns = tf.range(tf.shape(bits)[1])
        of_rows = tf.linalg.matvec(bits, 2 * columns + 1)
        of_tensor = tf.reduce_sum(of_rows * (2 * rows + 1))
        total += (2 * number + 1) * of_tensor
    return total


def _bits(tensor: tf.Tensor) -> tf.Tensor:
    if tensor.dtype.size in (4, 8):
        return tf.bitcast(tensor, tf.int32)
    if tensor.dtype.size == 2:
        return tf.cast(tf.bitcast(tensor, tf.int16), tf.int32)
    return tf.cast(tensor, tf.int32)


def _put(variable: tf.Variable, row: tf.Tensor, value: tf.Tensor) -> None:
    rows = variable.read_value()
    variable.assign(tf.tensor_scatter_nd_update(rows, [[row]], [value]))
