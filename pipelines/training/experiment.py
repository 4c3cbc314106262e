"""Runs official Model Garden training: the registered task, the official runner, hooks by Orbit actions."""

import contextlib
import hashlib
import logging
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orbit
import tensorflow as tf
from official.core import config_definitions, task_factory, train_utils
from official.modeling import optimization, performance
from official.vision.utils import summary_manager

from pipelines.system.signals import Interrupted, Interruption
from pipelines.training import checkpoints, determinism, faults, flight, memory, workers
from pipelines.training.progress import Meter
from pipelines.training.stream import Stream
from pipelines.usage import UsageError

BLOCK = "this block of steps, with a checkpoint"  # what a signal waits for

Report = Callable[[int, Mapping[str, float]], None]


@dataclass
class Outcome:
    """What a run reached: the last evaluation, digests of the weights, and where the time went.

    Attributes:
        weights_sha256: over all that the model's output depends on, statistics and moving averages too.
        trainable_sha256: over the trained variables alone, which is what `weights_sha256` was in older records.
    """

    steps: int | None = (
        None  # None until a model is built and, where there is a checkpoint, restored
    )
    metrics: dict[str, float] = field(default_factory=dict)
    weights_sha256: str = ""
    trainable_sha256: str = ""
    steps_per_second: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    checkpoints: dict[str, tuple[str, int]] = field(
        default_factory=dict
    )  # `best` and `last`: path, step


class Evaluations(summary_manager.ImageScalarSummaryManager):
    """The official summary manager, telling when an evaluation begins and ends."""

    def __init__(
        self, folder: str, step: tf.Variable, begin: Callable[[], None], end: Callable[[], None]
    ) -> None:
        super().__init__(folder, tf.summary.scalar, tf.summary.image, global_step=step)
        self._begin, self._end, self._running = begin, end, False

    def summary_writer(self, relative_path: str = "") -> Any:
        if not self._running:
            self._running = True
            self._begin()
        return super().summary_writer(relative_path)

    def flush(self) -> None:
        super().flush()
        self._running = False
        self._end()


def train(
    params: config_definitions.ExperimentConfig,
    run_dir: Path,
    outcome: Outcome,
    *,
    devices: tf.distribute.Strategy,
    exact: bool,
    record_flight: bool,
    report: Report,
    signals: Interruption,
    evaluated_steps: frozenset[int] = frozenset(),
    chief_dir: Path | None = None,
) -> None:
    """Trains and evaluates; goes on from the newest checkpoint in `run_dir`.

    Args:
        params: what `parameters.build` returned.
        run_dir: the checkpoints go to `checkpoints/`, TensorBoard events to `tensorboard/`, all that is printed to
            `train.log`.
        outcome: filled in as far as the run comes.
        devices: what `strategy.build` returned.
        exact: fix the order of the input, for bit-identical repeats.
        record_flight: write `flight.jsonl`.
        report: called with the global step and the values of `train/…` and `validation/…`.
        signals: where signals arrive.
        evaluated_steps: steps whose evaluation an earlier start of this run has recorded already.
        chief_dir: run directory of the chief, where this process is one of several workers and another is the chief.

    Raises:
        Interrupted: a signal came; a checkpoint of the last finished step is saved.
        faults.NotFinite: a loss is NaN or infinite.
        faults.NotSaved: a checkpoint could not be written.
        UsageError: the memory cannot hold it.
        workers.PeerGone: another worker has gone.
    """
    folder, trainer = run_dir / "checkpoints", params.trainer
    runner = None
    _prepare(params)
    meter = Meter(
        trainer.train_steps,
        math.ceil(trainer.train_steps / trainer.validation_interval),
        sys.stdout,
    )
    outcome.seconds = meter.seconds
    stream = Stream(params.task.train_data.seed, watched=record_flight) if exact else None
    if not chief_dir:
        checkpoints.mend(folder, meter.say)
    with _quiet(run_dir / "train.log"), workers.watched(devices):
        workers.meet(devices)  # The others look at the checkpoints when the chief has mended them.
        if chief_dir:
            workers.follow(chief_dir / "checkpoints", folder)
        official = _official_trainer(params, devices, folder, stream, train=True)
        if stream and stream.refusal:
            raise UsageError(stream.refusal)
        if all(device.device_type == "CPU" for device in tf.config.list_logical_devices()):
            meter.say(memory.check(official.model, params.task.train_data.global_batch_size))
        step = official.global_step
        recording = None
        if record_flight:
            with devices.scope():
                recording = flight.Flight(run_dir / flight.FILE, trainer.steps_per_loop, stream)
            recording.attach(official.task, official.optimizer, step)
        done = 0

        def weights() -> str:
            return weights_sha256(evaluated(official))

        def after_steps(output: Mapping[str, Any]) -> None:
            nonlocal done
            values, now = scalars(output), int(step.numpy())
            steps = range(done + 1, now + 1)
            if recording:
                losses = recording.write(
                    done, now, None if now % trainer.checkpoint_interval else weights
                )
                steps = next(
                    (
                        range(one, one + 1)
                        for one, loss in zip(steps, losses)
                        if not np.isfinite(loss)
                    ),
                    steps,
                )
            faults.refuse_not_finite(
                _losses(values), steps, runner.checkpoint_manager.latest_checkpoint
            )
            meter.trained(now, values)
            report(now, {f"train/{name}": value for name, value in values.items()})
            done = now
            signals.check()

        averaged = _Averaged(official)

        def before_evaluation() -> None:
            # Saved first: an evaluation may swap in averaged weights, and may be killed.
            _save(runner, int(step.numpy()))
            signals.release()
            signals.check()
            averaged.keep()
            meter.evaluating()

        def after_evaluation(output: Mapping[str, Any]) -> None:
            outcome.metrics = scalars(output)
            report(
                int(step.numpy()),
                {f"validation/{name}": value for name, value in outcome.metrics.items()},
            )
            headline = trainer.best_checkpoint_eval_metric
            if headline in outcome.metrics:
                meter.say(
                    f"step {int(step.numpy())}/{trainer.train_steps}  {headline} {outcome.metrics[headline]:.4f}"
                )

        def end_evaluation() -> None:
            averaged.put_back()
            meter.evaluated()
            signals.hold(BLOCK)

        runner = workers.runner_class(devices)(
            devices,
            official.task,
            "train_and_eval",
            params,
            str(folder),
            trainer=official,
            train_actions=[after_steps],
            eval_actions=[after_evaluation],
            summary_manager=orbit.utils.SummaryManager(
                str(run_dir / "tensorboard/train"), tf.summary.scalar, global_step=step
            ),
            eval_summary_manager=Evaluations(
                str(run_dir / "tensorboard/validation"), step, before_evaluation, end_evaluation
            ),
        )
        checkpoints.guard(runner.checkpoint_manager)
        done = int(step.numpy())
        if evaluated_steps and not done:
            meter.say("no checkpoint of what is recorded is left; starting from the first step")
        workers.refuse_disagreement(devices, chief_dir or run_dir, done, params)
        if stream:
            stream.start = done
        if recording:
            recording.begin(done, weights)
        try:
            meter.start(done)
            if done == 0:
                _save(runner, 0)  # Official saving counts its interval from the first checkpoint.
            # What `runner.run` does, without the count of FLOPs that it ends with; after a stop between two evaluations
            # the next one comes where it would have come.
            with devices.scope():
                _create_slots(official.optimizer, official.model.trainable_variables)
                if done and _evaluation_due(params, done) and done not in evaluated_steps:
                    runner.controller.evaluate(trainer.validation_steps)
                signals.hold(BLOCK)
                if ahead := -done % trainer.validation_interval:
                    runner.controller.train(
                        min(done + ahead, trainer.train_steps), checkpoint_at_completion=False
                    )
                    runner.controller.evaluate(trainer.validation_steps)
                runner.controller.train_and_evaluate(
                    train_steps=trainer.train_steps,
                    eval_steps=trainer.validation_steps,
                    eval_interval=trainer.validation_interval,
                )
        except Interrupted:
            if signals.held:
                _save(runner, int(step.numpy()))
            raise
        except tf.errors.OpError as error:
            fault = stream.fault if stream else None
            if fault is None and isinstance(
                error, tf.errors.DataLossError
            ):  # Read in order, without the stream.
                fault = f"the data are damaged: {str(error.message).splitlines()[0]}"
            if fault:
                raise UsageError(f"{fault}; {_repair(chief_dir or run_dir)}") from error
            refuse_undecodable(
                stream,
                range(done, done + trainer.steps_per_loop + 1) if signals.held else None,
                error,
            )
            raise
        except Exception:
            if (
                stream and stream.refusal
            ):  # Raised while the step was traced, and rewritten on its way.
                raise UsageError(stream.refusal) from None
            raise
        finally:
            meter.stop()
            outcome.steps_per_second = meter.steps_per_second
            outcome.steps = int(step.numpy())
            outcome.checkpoints = checkpoints.places(
                folder, runner.checkpoint_manager.latest_checkpoint
            )
        outcome.weights_sha256 = weights()
        outcome.trainable_sha256 = weights_sha256(official.model.trainable_variables)


def _repair(run_dir: Path) -> str:
    """What to type when a record has turned out damaged: the run's own configuration names the data."""
    data = shlex.join(["trellis", "data", f"@{run_dir}/config.yaml", "verify=true"])
    return f"find and repair it with: {data}, then resume with: make train RUN={run_dir}"


def refuse_undecodable(
    stream: Stream | None, steps: range | None, error: tf.errors.OpError
) -> None:
    """Names the record that made an operation fail, if one did.

    Args:
        steps: whose batches it may lie in; None where it lies in the data evaluated on.

    Raises:
        UsageError: there is such a record.
    """
    if (
        stream
        and isinstance(error, tf.errors.InvalidArgumentError)
        and (fault := stream.undecodable(steps))
    ):
        raise UsageError(fault) from error


class _Averaged:
    """Keeps weights of which a moving average is evaluated: the official swap adds and subtracts, which changes their last bits."""

    def __init__(self, official: Any) -> None:
        averaging = _is_averaging(official)
        self._variables = (
            [*official.model.variables, *official.optimizer.variables()] if averaging else []
        )
        self._values: list[np.ndarray] = []

    def keep(self) -> None:
        self._values = [variable.numpy() for variable in self._variables]

    def put_back(self) -> None:
        for variable, value in zip(self._variables, self._values, strict=False):
            variable.assign(value)


def evaluate(
    params: config_definitions.ExperimentConfig,
    checkpoint: str,
    run_dir: Path,
    *,
    devices: tf.distribute.Strategy,
    exact: bool,
) -> Outcome:
    """Evaluates one checkpoint on `params.task.validation_data`; writes nothing but `evaluate.log`."""
    _prepare(params)
    outcome = Outcome(steps=0)
    meter = Meter(1, 1, sys.stdout)
    with _quiet(run_dir / "evaluate.log"):
        stream = Stream(0) if exact else None
        official = _official_trainer(params, devices, None, stream, train=False)
        with devices.scope():
            controller = orbit.Controller(
                strategy=devices,
                evaluator=official,
                global_step=official.global_step,
                eval_actions=[lambda output: outcome.metrics.update(scalars(output))],
            )
            official.checkpoint.restore(checkpoint).expect_partial()
            if checkpoints.is_best(checkpoint):
                _settle_averages(official)
            outcome.weights_sha256 = weights_sha256(evaluated(official))
            outcome.trainable_sha256 = weights_sha256(official.model.trainable_variables)
            meter.evaluating()
            try:
                controller.evaluate(params.trainer.validation_steps)
            except tf.errors.OpError as error:
                refuse_undecodable(stream, None, error)
                raise
            meter.evaluated()
        outcome.steps = int(official.global_step.numpy())
    outcome.seconds = meter.seconds
    return outcome


def _prepare(params: config_definitions.ExperimentConfig) -> None:
    determinism.seed_everything(params.task.train_data.seed)
    # Set on every run: the policy is process state, and stays from an earlier one.
    performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype or "float32")


def _official_trainer(
    params: config_definitions.ExperimentConfig,
    task_strategy: tf.distribute.Strategy,
    folder: Path | None,
    stream: Stream | None,
    *,
    train: bool,
) -> Any:
    with task_strategy.scope():
        task = task_factory.get_task(params.task, logging_dir=str(folder) if folder else None)
        if stream:
            determinism.repeatable(task, stream)
        workers.whole_validation(task, task_strategy)
        exporter = checkpoints.best_exporter(params.trainer, folder) if train and folder else None
        official = train_utils.create_trainer(
            params, task, train=train, evaluate=True, checkpoint_exporter=exporter
        )
        if stream and train:
            determinism.stepwise(task, stream, official.global_step)
        return official


def _create_slots(optimizer: Any, variables: list[tf.Variable]) -> None:
    """Creates the optimizer's variables, which its first step would: a step that creates any is traced twice."""
    create = getattr(optimizer, "_create_all_weights", None) or getattr(optimizer, "build", None)
    if create:
        create(variables)


def _save(runner: Any, step: int) -> None:
    runner.checkpoint_manager.save(checkpoint_number=step, check_interval=False)


def _evaluation_due(params: config_definitions.ExperimentConfig, step: int) -> bool:
    return step % params.trainer.validation_interval == 0 or step == params.trainer.train_steps


def _losses(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if "loss" in name}


def scalars(output: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Flattens nested evaluation output to its scalar values, names joined by `/`; images are left out."""
    flat: dict[str, float] = {}
    for name, value in output.items():
        if isinstance(value, Mapping):
            flat.update(scalars(value, f"{prefix}{name}/"))
        elif np.ndim(value := orbit.utils.get_value(value)) == 0 and not name.startswith("image/"):
            flat[f"{prefix}{name}"] = float(value)
    return flat


def evaluated(official: Any) -> list[tf.Variable]:
    """Everything that a model's output depends on: its variables, and the moving averages that an evaluation puts in their place."""
    averages = official.optimizer._average_weights if _is_averaging(official) else []
    return [*official.model.variables, *averages]


def _is_averaging(official: Any) -> bool:
    return isinstance(official.optimizer, optimization.ExponentialMovingAverage)


def _settle_averages(official: Any) -> None:
    """Makes of weights that are averages already, as in a best checkpoint, those that the official evaluation swaps in."""
    if _is_averaging(official):
        for average, weight in zip(
            official.optimizer._average_weights, official.optimizer._model_weights, strict=True
        ):
            average.assign(weight)


def weights_sha256(variables: list[tf.Variable]) -> str:
    """Digest over the sorted names and the bytes of variables."""
    digest = hashlib.sha256()
    for name, value in sorted(
        (variable.name, variable.numpy().tobytes()) for variable in variables
    ):
        digest.update(name.encode() + b"\0" + value)
    return digest.hexdigest()


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Sends what Orbit, TensorFlow and the evaluators print to a file, and leaves the terminal to the meter."""
    logger = tf.get_logger()
    handlers = [one for one in logger.handlers if isinstance(one, logging.StreamHandler)]
    propagated, logger.propagate = (
        logger.propagate,
        False,
    )  # Somebody else's handler would show it all the same.
    with open(log, "a", buffering=1) as stream, contextlib.redirect_stdout(stream):
        streams = [one.setStream(stream) for one in handlers]
        try:
            yield
        finally:
            for handler, before in zip(handlers, streams, strict=True):
                handler.setStream(before)
            logger.propagate = propagated
