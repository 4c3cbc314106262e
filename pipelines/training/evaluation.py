"""Evaluates one checkpoint, without a training around it."""

import copy
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orbit
import tensorflow as tf
from official.core import config_definitions, task_factory, train_utils

from pipelines import outcomes
from pipelines.outcomes import Outcomes
from pipelines.training import checkpoints, official, weights
from pipelines.training.exact.order import Stream
from pipelines.training.loop import Outcome
from pipelines.training.progress import Meter, quiet
from pipelines.training.witness import Witness

Forward = Callable[[tf.Tensor, Mapping[str, Any]], Mapping[str, Any]]


def evaluate(
    params: config_definitions.ExperimentConfig,
    restore: Callable[[Any], None],
    run_dir: Path,
    *,
    devices: tf.distribute.Strategy,
    exact: bool,
) -> Outcome:
    """Evaluates one checkpoint on `params.task.validation_data`; writes `evaluate.log` and what was found in every image.

    Args:
        restore: gives a trainer's model its weights.
    """
    official.prepare(params)
    outcome = Outcome(steps=0)
    meter = Meter(1, 1, sys.stdout)
    with quiet(run_dir / "evaluate.log"):
        stream = Stream(0) if exact else None
        trainer = official.trainer(params, devices, stream)
        witness = Witness(trainer.task)
        with devices.scope():
            controller = orbit.Controller(
                strategy=devices,
                evaluator=trainer,
                global_step=trainer.global_step,
                eval_actions=[lambda output: outcome.metrics.update(official.scalars(output))],
            )
            restore(trainer)
            outcome.weights_sha256 = weights.sha256(weights.evaluated(trainer))
            outcome.trainable_sha256 = weights.sha256(trainer.model.trainable_variables)
            meter.evaluating()
            try:
                controller.evaluate(params.trainer.validation_steps)
            except tf.errors.OpError as error:
                official.refuse_undecodable(stream, None, error)
                raise
            meter.evaluated()
        outcome.steps = int(trainer.global_step.numpy())
        witness.write(run_dir / outcomes.FILE, outcome.steps)
    outcome.seconds = meter.seconds
    return outcome


def of_checkpoint(prefix: str) -> Callable[[Any], None]:
    """Gives a trainer what a run has saved."""

    def restore(trainer: Any) -> None:
        trainer.checkpoint.restore(prefix).expect_partial()
        if checkpoints.is_best(prefix):
            weights.settle_averages(trainer)

    return restore


class Answering(tf.Module):
    """Stands for the model in an official evaluation: whatever answers as it would."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self._forward = forward
        self.losses: list[tf.Tensor] = []
        self.metrics: list[Any] = []

    def __call__(self, images: tf.Tensor, training: bool = False, **shapes: Any) -> Any:
        """What `forward` says of a batch."""
        outputs = dict(self._forward(images, shapes))
        return outputs["logits"] if set(outputs) == {"logits"} else outputs


def figures(
    params: config_definitions.ExperimentConfig, forward: Forward
) -> tuple[dict[str, float], dict[str, Outcomes]]:
    """Evaluates what answers in a model's place on the validation data, by the official trainer.

    Args:
        forward: from a batch of images, and the keywords that the model would be called with, to its outputs.

    Returns:
        The figures, and what was found in every image.
    """
    params = copy.deepcopy(params)
    # What answers is no part of a graph.
    params.trainer.eval_tf_function = False
    params.trainer.eval_tf_while_loop = False
    params.trainer.optimizer_config.ema = None
    # As in `official.trainer`.
    with tempfile.TemporaryDirectory() as notes:
        task = task_factory.get_task(params.task, logging_dir=notes)
        task.build_model = lambda: Answering(forward)
        witness = Witness(task)
        trainer = train_utils.create_trainer(params, task, train=False, evaluate=True)
    steps = tf.constant(params.trainer.validation_steps)
    return official.scalars(trainer.evaluate(steps)), witness.found()
