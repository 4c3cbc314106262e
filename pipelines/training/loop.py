"""One training: the official runner with hooks of ours, from the newest checkpoint to the last step."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orbit
import tensorflow as tf
from official.core import config_definitions
from official.vision.utils import summary_manager

from pipelines import outcomes
from pipelines.system.signals import Interrupted, Interruption
from pipelines.training import checkpoints, faults, memory, official, upstream, weights, workers
from pipelines.training.exact import flight
from pipelines.training.exact.order import Stream
from pipelines.training.progress import Meter, quiet
from pipelines.training.starting import Starting, load, official_loading
from pipelines.training.witness import Witness
from pipelines.usage import UsageError, make_command

BLOCK = "this block of steps, with a checkpoint"  # what a signal waits for
ORBITS_OWN = "steps_per_second"  # what Orbit adds to the figures of an evaluation

Report = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Plan:
    """What a training is to do, and with what.

    Attributes:
        params: what `parameters.build` returned.
        run_dir: the checkpoints go to `checkpoints/`, TensorBoard events to `tensorboard/`, all that is printed to
            `train.log`.
        devices: what `strategy.build` returned.
        exact: fix the order of the input, for bit-identical repeats.
        record_flight: write `flight.jsonl`.
        report: called with the global step and the values of `train/…` and `validation/…`.
        signals: where signals arrive.
        evaluated_steps: steps whose evaluation an earlier start of this run has recorded already.
        chief_dir: run directory of the chief, where this process is one of several workers and another is the chief.
        starting: weights to start from; None: what `task.init_checkpoint` says, else random ones.
        release: the step after which the backbone learns too; until then it stays as it starts, in every bit.
    """

    params: config_definitions.ExperimentConfig
    run_dir: Path
    devices: tf.distribute.Strategy
    exact: bool
    record_flight: bool
    report: Report
    signals: Interruption
    evaluated_steps: frozenset[int] = frozenset()
    chief_dir: Path | None = None
    starting: Starting | None = None
    release: int = 0

    @property
    def folder(self) -> Path:
        """Where checkpoints go."""
        return self.run_dir / "checkpoints"


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
    starting: dict[str, Any] = field(
        default_factory=dict
    )  # what of the starting weights was loaded


def train(plan: Plan, outcome: Outcome) -> None:
    """Trains and evaluates; resumes from the newest checkpoint in the run directory.

    Args:
        outcome: filled in as far as the run comes.

    Raises:
        Interrupted: a signal came; a checkpoint of the last finished step is saved.
        faults.NotFinite: a loss is NaN or infinite.
        faults.NotSaved: a checkpoint could not be written.
        UsageError: the memory cannot hold it, or the data cannot be read.
        workers.PeerGone: another worker has gone.
    """
    official.prepare(plan.params)
    trainer = plan.params.trainer
    evaluations = math.ceil(trainer.train_steps / trainer.validation_interval)
    meter = Meter(trainer.train_steps, evaluations, sys.stdout)
    outcome.seconds = meter.seconds
    if not plan.chief_dir:
        checkpoints.repair(plan.folder, meter.say)
    with quiet(plan.run_dir / "train.log"), workers.watched(plan.devices):
        workers.meet(
            plan.devices
        )  # The others look at the checkpoints once the chief has repaired them.
        if plan.chief_dir:
            workers.follow(plan.chief_dir / "checkpoints", plan.folder)
        Training(plan, outcome, meter).run()


class Training:
    """A training under way: the official runner, restored from the newest checkpoint, and what watches its steps."""

    def __init__(self, plan: Plan, outcome: Outcome, meter: Meter) -> None:
        seed = plan.params.task.train_data.seed
        self._plan = plan
        self._outcome = outcome
        self._meter = meter
        self._trainer = plan.params.trainer
        self._signals = plan.signals
        self._stream = Stream(seed, watched=plan.record_flight) if plan.exact else None
        self._official = official.trainer(
            plan.params,
            plan.devices,
            self._stream,
            plan.folder,
        )
        self._witness = Witness(self._official.task)
        self._refuse_hopeless()
        self._flight = self._recorder() if plan.record_flight else None
        self._trainable = list(self._official.model.trainable_variables)
        self._load_first()
        self._averaged = weights.Averaged(self._official)
        self._level = weights.leveller(plan.devices, self._official.model)
        self._runner = self._built_runner()
        self._done = self._step()
        self._is_validation_open = False
        self._resume()

    # What a training is made of

    def _refuse_hopeless(self) -> None:
        if self._stream and self._stream.refusal:
            raise UsageError(self._stream.refusal)
        devices = tf.config.list_logical_devices()
        if all(device.device_type == "CPU" for device in devices):
            batch = self._plan.params.task.train_data.global_batch_size
            self._meter.say(memory.check(self._official.model, batch))

    def _load_first(self) -> None:
        """Has the official trainer start from the weights that are chosen, where no checkpoint is to be resumed."""
        task = self._official.task
        starting = self._plan.starting or official_loading(task)
        if starting is None:
            return

        def initialize(model: Any) -> None:
            loaded = load(model, starting, self._meter.say)
            weights.settle_averages(self._official)
            self._outcome.starting = asdict(loaded)

        task.initialize = initialize

    def _freeze(self, is_frozen: bool) -> None:
        """Freezes the backbone, statistics of batch norm and all, or releases it."""
        backbone = getattr(self._official.model, "backbone", None)
        if backbone is None:
            raise UsageError("frozen: this model has no backbone to freeze; leave it out")
        backbone.trainable = not is_frozen
        upstream.trace_again(self._official)

    def _recorder(self) -> flight.Flight:
        file = self._plan.run_dir / flight.FILE
        with self._plan.devices.scope():
            recorder = flight.Flight(file, self._trainer.steps_per_loop, self._stream)
        trainer = self._official
        recorder.attach(trainer.task, trainer.optimizer, trainer.global_step)
        return recorder

    def _built_runner(self) -> Any:
        """The official runner, which restores the newest checkpoint as it is built."""
        plan = self._plan
        step = self._official.global_step
        events = plan.run_dir / "tensorboard"
        runner = workers.runner_class(plan.devices)(
            plan.devices,
            self._official.task,
            "train_and_eval",
            plan.params,
            str(plan.folder),
            trainer=self._official,
            train_actions=[self.after_steps],
            summary_manager=orbit.utils.SummaryManager(
                str(events / "train"), tf.summary.scalar, global_step=step
            ),
            eval_summary_manager=summary_manager.ImageScalarSummaryManager(
                str(events / "validation"), tf.summary.scalar, tf.summary.image, global_step=step
            ),
        )
        checkpoints.guard(runner.checkpoint_manager)
        return runner

    def _resume(self) -> None:
        """Lets what watches the steps go back to the step that was restored, on every worker the same."""
        plan = self._plan
        if plan.evaluated_steps and not self._done:
            self._meter.say(
                "no checkpoint of what is recorded is left; starting from the first step"
            )
        run_dir = plan.chief_dir or plan.run_dir
        workers.refuse_disagreement(plan.devices, run_dir, self._done, plan.params)
        if self._plan.release:
            self._freeze(self._done < self._plan.release)
        if self._stream:
            self._stream.start = self._done
        if self._flight:
            self._flight.begin(self._done, self._weights)

    # The loop

    def run(self) -> None:
        """Trains to the last step; saves first where a signal stops it between two blocks of steps."""
        try:
            self._train()
        except Interrupted:
            if self._signals.held:
                self._save()
            raise
        except tf.errors.OpError as error:
            self._refuse_data(error)
            raise
        except Exception:
            # Raised while the step was traced, and rewritten on its way.
            if self._stream and self._stream.refusal:
                raise UsageError(self._stream.refusal) from None
            raise
        finally:
            self._meter.stop()
            self._note_progress()
        self._outcome.weights_sha256 = self._weights()
        self._outcome.trainable_sha256 = weights.sha256(self._official.model.trainable_variables)

    def _train(self) -> None:
        """Does what `runner.run` does, without the count of FLOPs at its end, and resumes between two evaluations too."""
        self._meter.start(self._done)
        if self._done == 0:
            self._save()  # Official saving counts its interval from the first checkpoint.
        with self._plan.devices.scope():
            # Of what is frozen too: a checkpoint holds the same before the release and after.
            upstream.create_slots(self._official.optimizer, self._trainable)
            if self._is_evaluation_due():
                self.evaluate()
            self._signals.hold(BLOCK)
            for end in boundaries(self._done, self._trainer):
                self._runner.controller.train(end, checkpoint_at_completion=False)
                self.evaluate()
            self._runner.controller.save_checkpoint()

    def after_steps(self, output: Mapping[str, Any]) -> None:
        """Records a block of steps; the official runner calls it before it saves a checkpoint."""
        self._level()
        values = official.scalars(output)
        step = self._step()
        steps = range(self._done + 1, step + 1)
        if self._flight:
            is_saved = step % self._trainer.checkpoint_interval == 0
            digest = self._weights if is_saved else None
            losses = self._flight.write(self._done, step, digest)
            steps = _first_not_finite(steps, losses)
        faults.refuse_not_finite(values, steps, self._newest())
        self._meter.trained(step, values)
        self._plan.report(step, _under("train", values))
        self._done = step
        # Not left to the first evaluation: data that cannot be evaluated on should show before hours of training.
        self._open_validation()
        if step == self._plan.release < self._trainer.train_steps:
            self._freeze(False)
            self._meter.say(f"step {step}/{self._trainer.train_steps}  the backbone is released")
        self._signals.check()

    def _open_validation(self) -> None:
        if not self._is_validation_open:
            official.open_validation(self._official)
            self._meter.prepared_to_evaluate()
            self._is_validation_open = True

    def evaluate(self) -> None:
        """Saves, evaluates and reports; a signal stops an evaluation on the spot."""
        self._save()  # An evaluation may swap in averaged weights, and may be killed.
        self._signals.release()
        self._signals.check()
        self._open_validation()
        self._averaged.keep()
        self._witness.begin()
        self._meter.evaluating()
        output = self._runner.controller.evaluate(self._trainer.validation_steps)
        self._averaged.put_back()
        self._meter.evaluated()
        figures = official.scalars(output)
        figures.pop(ORBITS_OWN, None)
        self._report(figures)
        self._keep_outcomes()
        self._signals.hold(BLOCK)

    def _keep_outcomes(self) -> None:
        """Keeps what was found in every image, of the last evaluation and of the best."""
        if self._plan.chief_dir:
            return
        folder = self._plan.run_dir / outcomes.FOLDER
        step = self._step()
        self._witness.write(folder / outcomes.LAST, step)
        if checkpoints.best_step(self._plan.folder / "best") == step:
            self._witness.write(folder / outcomes.BEST, step)

    def _report(self, figures: dict[str, float]) -> None:
        step = self._step()
        self._outcome.metrics = figures
        self._plan.report(step, _under("validation", figures))
        headline = self._trainer.best_checkpoint_eval_metric
        if headline in figures:
            figure = f"{headline} {figures[headline]:.4f}"
            self._meter.say(f"step {step}/{self._trainer.train_steps}  {figure}")

    def _is_evaluation_due(self) -> bool:
        """Whether the step resumed from was left without its evaluation."""
        if self._done == 0 or self._done in self._plan.evaluated_steps:
            return False
        is_last = self._done == self._trainer.train_steps
        return is_last or self._done % self._trainer.validation_interval == 0

    def _save(self) -> None:
        manager = self._runner.checkpoint_manager
        manager.save(checkpoint_number=self._step(), check_interval=False)

    def _step(self) -> int:
        return int(self._official.global_step.numpy())

    def _newest(self) -> str | None:
        """The newest checkpoint."""
        return self._runner.checkpoint_manager.latest_checkpoint

    def _weights(self) -> str:
        return weights.sha256(weights.evaluated(self._official))

    # The end

    def _note_progress(self) -> None:
        self._outcome.steps_per_second = self._meter.steps_per_second
        self._outcome.steps = self._step()
        self._outcome.checkpoints = checkpoints.saved(self._plan.folder, self._newest())

    def _refuse_data(self, error: tf.errors.OpError) -> None:
        """Says which record made an operation fail, if one did.

        Raises:
            UsageError: one did; what to type.
        """
        fault = self._stream.fault if self._stream else None
        if fault is None and isinstance(error, tf.errors.DataLossError):
            # The official reader has read it, not the stream.
            fault = f"the data are damaged: {str(error.message).splitlines()[0]}"
        if fault:
            run_dir = self._plan.chief_dir or self._plan.run_dir
            raise UsageError(f"{fault}; {_repair(run_dir)}") from error
        last = self._done + self._trainer.steps_per_loop
        block = range(self._done, last + 1)
        is_training = self._signals.held is not None
        official.refuse_undecodable(self._stream, block if is_training else None, error)


def boundaries(done: int, trainer: config_definitions.TrainerConfig) -> Iterator[int]:
    """The steps to train to and evaluate at after `done`: each multiple of the interval, and the last step."""
    interval = trainer.validation_interval
    while done < trainer.train_steps:
        following = done - done % interval + interval
        done = min(following, trainer.train_steps)
        yield done


def _under(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}


def _first_not_finite(steps: range, losses: np.ndarray) -> range:
    """The first step whose loss is not finite; all where each is."""
    for step, loss in zip(steps, losses, strict=True):
        if not np.isfinite(loss):
            return range(step, step + 1)
    return steps


def _repair(run_dir: Path) -> str:
    """What to type when a record has turned out damaged: the run's own configuration names the data."""
    repair = make_command("data", [f"@{run_dir}/config.yaml", "verify=true"])
    resume = make_command("train", [f"run={run_dir}"])
    return f"to find and repair it: {repair}; then to resume: {resume}"
