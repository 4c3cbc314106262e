"""Evaluates one checkpoint, without a training around it."""

import sys
from pathlib import Path
from typing import Any

import orbit
import tensorflow as tf
from official.core import config_definitions

from pipelines.training import checkpoints, official, weights
from pipelines.training.exact.order import Stream
from pipelines.training.loop import Outcome
from pipelines.training.progress import Meter, quiet


def evaluate(
    params: config_definitions.ExperimentConfig,
    checkpoint: str,
    run_dir: Path,
    *,
    devices: tf.distribute.Strategy,
    exact: bool,
) -> Outcome:
    """Evaluates one checkpoint on `params.task.validation_data`; writes nothing but `evaluate.log`."""
    official.prepare(params)
    outcome = Outcome(steps=0)
    meter = Meter(1, 1, sys.stdout)
    with quiet(run_dir / "evaluate.log"):
        stream = Stream(0) if exact else None
        trainer = official.trainer(params, devices, stream)
        with devices.scope():
            controller = orbit.Controller(
                strategy=devices,
                evaluator=trainer,
                global_step=trainer.global_step,
                eval_actions=[lambda output: outcome.metrics.update(official.scalars(output))],
            )
            _restore(trainer, checkpoint)
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
    outcome.seconds = meter.seconds
    return outcome


def _restore(trainer: Any, checkpoint: str) -> None:
    trainer.checkpoint.restore(checkpoint).expect_partial()
    if checkpoints.is_best(checkpoint):
        weights.settle_averages(trainer)
