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
from pipelines.training import tracing
from pipelines.training.stream import Stream

FILE = "flight.jsonl"


class Flight:
    """Records the steps of one run; create it inside the strategy's scope.

    Args:
        block: most steps between two calls of `write`.
        stream: whose order of the data is noted, where the input follows one.
    """

    def __init__(self, file: Path, block: int, stream: Stream | None) -> None:
        self._file, self._block, self._stream = file, block, stream
        self._local = threading.local()  # Replicas are traced in threads.
        kept = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.SUM,
        }
        self._inputs = tf.Variable(tf.zeros([block], tf.int32), name="flight_inputs", **kept)
        self._figures = tf.Variable(tf.zeros([block, 2]), name="flight_figures", **kept)

    def attach(self, task: Any, optimizer: Any, step: tf.Variable) -> None:
        """Watches a task's training steps and the gradients that they apply."""
        train_step, apply_gradients = task.train_step, optimizer.apply_gradients

        @tracing.plain
        @functools.wraps(apply_gradients)
        def applied(gradients: Any, *args: Any, **kwargs: Any) -> Any:
            gradients = list(gradients)
            found = [
                tf.cast(tf.convert_to_tensor(gradient), tf.float32)
                for gradient, _ in gradients
                if gradient is not None
            ]
            self._local.norm = tf.linalg.global_norm(found)
            return tracing.converted(apply_gradients)(gradients, *args, **kwargs)

        @tracing.plain
        @functools.wraps(train_step)
        def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            row = tf.cast(tf.cast(step, tf.int64) % self._block, tf.int32)
            checksum = fingerprint(inputs)
            logs = tracing.converted(train_step)(inputs, *args, **kwargs)
            figures = tf.stack(
                [tf.cast(tf.reduce_mean(logs[task.loss]), tf.float32), self._local.norm]
            )
            _put(self._inputs, row, checksum)
            _put(self._figures, row, figures)
            return logs

        optimizer.apply_gradients, task.train_step = applied, watched

    def begin(self, step: int, weights: Callable[[], str]) -> None:
        """Drops what an earlier start wrote beyond `step`, from which this one goes on; a new run notes its first weights."""
        if step:
            kept = [
                record for record, _ in durable.read_lines(self._file) if record["step"] <= step
            ]
        else:
            kept = [{"step": 0, "variables": weights()}]
        durable.write_whole(self._file, durable.as_lines(*kept))

    def write(self, first: int, last: int, weights: Callable[[], str] | None) -> np.ndarray:
        """Writes steps `first` + 1 to `last`, `variables` with the last of them; returns their losses, float32 of shape [steps]."""
        rows = np.arange(first, last) % self._block
        inputs, figures = self._inputs.numpy()[rows], self._figures.numpy()[rows]
        records = []
        for place, (checksum, (loss, norm)) in enumerate(zip(inputs, figures, strict=True)):
            record = {
                "step": first + place + 1,
                "inputs": f"{int(checksum) & 0xFFFFFFFF:08x}",
                "loss": float(loss),
                "gradient": float(norm),
            }
            if (
                self._stream
                and (order := self._stream.digests.pop(first + place, None)) is not None
            ):
                record["order"] = f"{order:08x}"
            if weights and first + place + 1 == last:
                record["variables"] = weights()
            records.append(record)
        durable.append(self._file, durable.as_lines(*records))
        return figures[:, 0]


def fingerprint(inputs: Any) -> tf.Tensor:
    """Checksum over the bits of a nest of tensors and their places, int32 scalar; strings are left out."""
    total = tf.zeros([], tf.int32)
    for number, tensor in enumerate(tf.nest.flatten(inputs)):
        if not isinstance(tensor, tf.Tensor) or tensor.dtype in (
            tf.string,
            tf.variant,
            tf.resource,
        ):
            continue
        bits = tf.reshape(_bits(tensor), [tf.shape(tensor)[0] if tensor.shape.rank else 1, -1])
        rows, columns = tf.range(tf.shape(bits)[0]), tf.range(tf.shape(bits)[1])
        total += (2 * number + 1) * tf.reduce_sum(
            tf.reduce_sum(bits * (2 * columns + 1), 1) * (2 * rows + 1)
        )
    return total


def _bits(tensor: tf.Tensor) -> tf.Tensor:
    if tensor.dtype.size in (4, 8):
        return tf.bitcast(tensor, tf.int32)
    if tensor.dtype.size == 2:
        return tf.cast(tf.bitcast(tensor, tf.int16), tf.int32)
    return tf.cast(tensor, tf.int32)


def _put(variable: tf.Variable, row: tf.Tensor, value: tf.Tensor) -> None:
    variable.assign(tf.tensor_scatter_nd_update(variable.read_value(), [[row]], [value]))
