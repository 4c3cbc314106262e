"""The parts of a training, each run alone: what its input, its step and its evaluation take, and what a step consists of.

The training is set up as for `train`; only what it is given differs.
"""

import math
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from official.core import config_definitions

from pipelines.training import official, upstream, weights
from pipelines.training.exact import flight
from pipelines.training.exact.order import Stream
from pipelines.training.progress import quiet

EDGE = 2048  # of the matrices whose product is timed
TRACED_STEPS = 3
TRACED_BATCHES = 30  # More than wait ready in buffers: of these a trace sees nothing.
CALLS = {"While", "If", "PartitionedCall", "StatefulPartitionedCall"}  # They hold other operations.


@dataclass
class Spent:
    """Seconds of the clock, and of all processors."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def timed() -> Iterator[Spent]:
    """Measures what happens inside."""
    spent = Spent()
    began, used = time.monotonic(), _cpu_s()
    yield spent
    spent.wall_s = time.monotonic() - began
    spent.cpu_s = _cpu_s() - used


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Parts:
    """A training whose parts can be run alone.

    Args:
        folder: where checkpoints, flight record and traces would go.
        exact: as for `loop.Plan`, the next too.
    """

    def __init__(
        self,
        params: config_definitions.ExperimentConfig,
        devices: tf.distribute.Strategy,
        folder: Path,
        *,
        exact: bool,
        record_flight: bool,
    ) -> None:
        official.prepare(params)
        seed = params.task.train_data.seed
        stream = Stream(seed, watched=record_flight) if exact else None
        self._folder = folder
        self._devices = devices
        self._block = params.trainer.steps_per_loop
        self._validation_steps = tf.constant(params.trainer.validation_steps)
        self._trainer = trainer = official.trainer(params, devices, stream, folder)
        with devices.scope():
            if record_flight:
                recorder = flight.Flight(folder / flight.FILE, self._block, stream)
                recorder.attach(trainer.task, trainer.optimizer, trainer.global_step)
            upstream.create_slots(trainer.optimizer, trainer.model.trainable_variables)
        self._data = trainer.train_dataset
        self._batch = next(iter(self._data))

    def reader(self) -> Callable[[int], None]:
        """Returns what reads a number of batches more."""
        batches = iter(self._data)

        def read(count: int) -> None:
            for _ in range(count):
                next(batches)

        return read

    def repeat_one_batch(self) -> None:
        """Gives the step the same batch again and again, which costs nothing."""
        self._trainer.train_dataset = tf.data.Dataset.from_tensors(self._batch).repeat()

    def read_data(self) -> None:
        """Gives the step its data."""
        self._trainer.train_dataset = self._data

    def step(self, count: int) -> None:
        """Trains a number of steps."""
        with self._devices.scope(), quiet(self._folder / "train.log"):
            self._trainer.train(tf.constant(count))

    def recorder(self) -> Callable[[int], None]:
        """Returns what records some blocks of steps that compute nothing, on one batch and the weights as gradients."""
        trainer = self._trainer
        idle = Idle(trainer.model.trainable_variables, trainer.task.loss)
        with self._devices.scope():
            recorder = flight.Flight(self._folder / "idle.jsonl", self._block, None)
            recorder.attach(idle, idle, trainer.global_step)

        @tf.function
        def steps() -> None:
            for _ in tf.range(self._block):
                self._devices.run(idle.train_step, args=(self._batch,))

        def record(blocks: int) -> None:
            for _ in range(blocks):
                steps()
                recorder.write(0, self._block, None)

        return record

    def open_validation(self) -> None:
        """Builds the input of the evaluations."""
        with self._devices.scope():
            official.open_validation(self._trainer)

    def evaluate(self) -> None:
        """Evaluates on all validation data."""
        with self._devices.scope(), quiet(self._folder / "evaluate.log"):
            self._trainer.evaluate(self._validation_steps)

    def save(self) -> None:
        """Writes a checkpoint, and takes the digest of the weights that the flight record has beside it."""
        self._trainer.checkpoint.write(str(self._folder / "checkpoint"))
        weights.sha256(weights.evaluated(self._trainer))

    def flops(self) -> int:
        """Floating-point operations of a step's convolutions and products; a multiplication and an addition are two."""
        trainer = self._trainer

        def step(inputs: Any) -> Any:
            return trainer.task.train_step(inputs, trainer.model, trainer.optimizer)

        run = tf.function(lambda inputs: self._devices.run(step, args=(inputs,)))
        with self._devices.scope(), quiet(self._folder / "flops.log"):
            graph = run.get_concrete_function(self._batch).graph
            return sum(_flops(graph, operation) for operation in graph.get_operations())

    def kinds(self, run: Callable[[int], None], count: int) -> list[tuple[str, float, float]]:
        """What a step, or a batch, consists of, the longest first: kind of operation, seconds in all threads, calls.

        Args:
            run: does a number of steps, or reads a number of batches.
            count: how many are traced.
        """
        traces = Path(tempfile.mkdtemp(dir=self._folder))
        tf.profiler.experimental.start(str(traces))
        run(count)
        tf.profiler.experimental.stop()
        spent: Counter[str] = Counter()
        calls: Counter[str] = Counter()
        for file in traces.rglob("*.xplane.pb"):
            for kind, picoseconds in _operations(file.read_bytes()):
                spent[kind] += picoseconds
                calls[kind] += 1
        rows = []
        for kind, picoseconds in spent.most_common():
            rows.append((kind, picoseconds / 1e12 / count, calls[kind] / count))
        return rows


class Idle:
    """Task and optimizer of a training that does nothing, for what watches the two."""

    def __init__(self, variables: list[tf.Variable], loss: str) -> None:
        self.loss = loss
        self._variables = variables

    @upstream.plain
    def train_step(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Applies the weights as gradients, and finds a loss."""
        self.apply_gradients((variable.read_value(), variable) for variable in self._variables)
        return {self.loss: tf.zeros([])}

    @upstream.plain
    def apply_gradients(self, pairs: Any) -> None:
        """Applies nothing."""


def _flops(graph: tf.Graph, operation: tf.Operation) -> int:
    if operation.type == "Einsum":
        return _flops_of_sum(operation)
    if not operation.type.startswith(("Conv", "Depthwise", "MatMul", "BatchMatMul")):
        return 0
    return upstream.flops(graph, operation)


def _flops_of_sum(operation: tf.Operation) -> int:
    """Of a sum of products that is written in letters: two for each combination of what the letters count."""
    equation = operation.get_attr("equation").decode()
    inputs, _ = equation.split("->")
    if "." in inputs:
        return 0  # Dimensions without letters: not counted.
    sizes: dict[str, int] = {}
    for letters, tensor in zip(inputs.split(","), operation.inputs, strict=True):
        sizes.update(zip(letters, tensor.shape, strict=True))
    return 2 * math.prod(sizes.values())


def _operations(trace: bytes) -> Iterator[tuple[str, int]]:
    """The kind of each operation that a trace has seen, and its picoseconds."""
    for plane in upstream.planes(trace):
        names = {number: event.name for number, event in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                # Operations are named `where/they/stand:Kind`; stages of an input, `Iterator::Kind`, hold them.
                place, _, kind = names[event.metadata_id].partition(":")
                if place and kind.isidentifier() and kind not in CALLS:
                    yield kind, event.duration_ps


def flops_a_second() -> float:
    """What one large matrix product reaches with the threads in force."""
    matrix = tf.random.stateless_uniform([EDGE, EDGE], [1, 2])
    product = tf.function(lambda: tf.reduce_sum(matrix @ matrix))
    product()
    best = math.inf
    for _ in range(5):
        with timed() as spent:
            product().numpy()
        best = min(best, spent.wall_s)
    return 2 * EDGE**3 / best
