"""The official trainer: task, model and optimizer, and in which order ours lies around their methods."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orbit
import tensorflow as tf
from official.core import config_definitions, task_factory, train_utils
from official.modeling import performance

from pipelines.training import checkpoints, conversions, exact, upstream, workers
from pipelines.training.exact import determinism
from pipelines.training.exact.order import Stream
from pipelines.usage import UsageError


def prepare(params: config_definitions.ExperimentConfig) -> None:
    """Sets what belongs to the whole process: seeds, the precision policy, lighter work on boxes."""
    upstream.say_what_is_asked()
    conversions.keep()
    determinism.seed_everything(params.task.train_data.seed)
    upstream.spare_work_on_boxes()
    upstream.expect_spare_features()
    # Set on every run: the policy is process state, and stays from an earlier one.
    performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype or "float32")


def trainer(
    params: config_definitions.ExperimentConfig,
    devices: tf.distribute.Strategy,
    stream: Stream | None,
    folder: Path | None = None,
) -> Any:
    """The official trainer, ready to train or evaluate.

    Its input is wrapped twice: the order of the stream inside, the share of a worker around it. Its training step is wrapped
    once: draws tied to the step; `flight.Flight.attach` lies around that.

    Args:
        stream: the order that the data follow; None: whatever the official reader does.
        folder: where checkpoints go; None: it will only evaluate. One that trains has no validation data before
            `open_validation`.
    """
    if stream:
        exact.install()
    with devices.scope(), tempfile.TemporaryDirectory() as notes:
        # Without a folder Mask R-CNN writes the boxes of its validation data where the command was typed, or takes those lying
        # there. It reads them as the trainer is made.
        task = task_factory.get_task(params.task, logging_dir=str(folder or notes))
        if stream:
            determinism.repeatable(task, stream)
        workers.whole_validation(task, devices)
        exporter = checkpoints.best_exporter(params.trainer, folder) if folder else None
        with _validation_put_off(task) if folder else contextlib.nullcontext():
            built = train_utils.create_trainer(
                params,
                task,
                train=folder is not None,
                evaluate=True,
                checkpoint_exporter=exporter,
            )
        if stream and folder:
            determinism.stepwise(task, stream, built.global_step)
        return built


@contextmanager
def _validation_put_off(task: Any) -> Iterator[None]:
    """Inside, a task gives nothing for its validation data: the first steps need not wait until their pipeline is traced."""
    official = task.build_inputs

    def build_inputs(
        params: Any, input_context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        if params.is_training:
            return official(params, input_context=input_context)
        return tf.data.Dataset.range(0)

    task.build_inputs = build_inputs
    try:
        yield
    finally:
        task.build_inputs = official


def open_validation(trainer: Any) -> None:
    """Gives a trainer its validation data; to be called inside the strategy's scope."""
    data = trainer.config.task.validation_data
    trainer.eval_dataset = trainer.distribute_dataset(trainer.task.build_inputs, data)


def scalars(output: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Flattens nested evaluation output to its scalar values, names joined by `/`; images are left out."""
    flat: dict[str, float] = {}
    for name, value in output.items():
        if isinstance(value, Mapping):
            flat.update(scalars(value, f"{prefix}{name}/"))
            continue
        value = orbit.utils.get_value(value)
        if np.ndim(value) == 0 and not name.startswith("image/"):
            flat[f"{prefix}{name}"] = float(value)
    return flat


def refuse_undecodable(
    stream: Stream | None, steps: range | None, error: tf.errors.OpError
) -> None:
    """Names the record that made an operation fail, if one did.

    Args:
        steps: whose batches it may lie in; None where it lies in the data evaluated on.

    Raises:
        UsageError: there is such a record.
    """
    if stream is None or not isinstance(error, tf.errors.InvalidArgumentError):
        return
    fault = stream.undecodable(steps)
    if fault:
        raise UsageError(fault) from error
