"""Several workers as one run: what each reads and writes, where they must agree, and what happens when one goes."""

import functools
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import tensorflow as tf
from official.core import train_lib

from pipelines.system.signals import Interruption
from pipelines.training import faults, strategy, upstream
from pipelines.usage import UsageError

GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.InternalError,
    tf.errors.CancelledError,
)


class PeerGone(Exception):
    """Another worker has gone; the newest checkpoint holds everything done until then."""


class Agreement(Interruption):
    """Lets all workers stop after the same step, whichever of them a signal has reached: alone, none could save."""

    def __init__(self, devices: tf.distribute.Strategy) -> None:
        super().__init__()
        self._devices = devices

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum

    def release(self) -> None:
        """Signals keep waiting for the next `check` of all workers."""
        self.held = None

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come to any worker. Every worker has to call it."""
        signums = everyones(self._devices, self._signum or 0)
        self._signum = max(signums) or None
        super().check()


def interruption(devices: tf.distribute.Strategy) -> Interruption:
    """Where signals arrive in this process, alone or as one of several workers."""
    is_alone = strategy.describe(devices)["workers"] == 1
    return Interruption() if is_alone else Agreement(devices)


def runner_class(devices: tf.distribute.Strategy) -> type[train_lib.OrbitExperimentRunner]:
    """The official runner, as this worker needs it.

    As a worker that is not the chief the official one saves, as all workers have to, into an empty temporary folder: after a
    restart it would begin anew while the chief resumes. Ours saves into its own folder, where `follow` has put what the
    chief resumes from.
    """
    if upstream.is_saver(devices):
        return train_lib.OrbitExperimentRunner
    return upstream.runner_saving_with(_own_keeper)


def _own_keeper(runner: train_lib.OrbitExperimentRunner) -> tf.train.CheckpointManager:
    return tf.train.CheckpointManager(
        runner.trainer.checkpoint,
        directory=runner.model_dir,
        max_to_keep=1,
        step_counter=runner.trainer.global_step,
        checkpoint_interval=runner.params.trainer.checkpoint_interval,
        init_fn=runner.trainer.initialize,
    )


def follow(chief: Path, own: Path) -> None:
    """Puts what the chief resumes from, in its `checkpoints/`, into a worker's own: the newest checkpoint, the best figure."""
    shutil.rmtree(own, ignore_errors=True)
    (own / "best").mkdir(parents=True)
    newest = tf.train.latest_checkpoint(str(chief))
    if newest:
        for file in chief.glob(f"{Path(newest).name}.*"):
            shutil.copy(file, own)
        upstream.write_state(own, [newest])
    info = chief / "best" / upstream.BEST_INFO
    if info.exists():
        shutil.copy(info, own / "best")


def whole_validation(task: Any, devices: tf.distribute.Strategy) -> None:
    """Lets every worker evaluate all of the validation data; replicas within it share.

    Official evaluators that work outside the graph, COCO's among them, see only what their own process has evaluated.
    """
    official = task.build_inputs

    def build_inputs(
        params: Any, input_context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        if input_context is not None and not params.is_training:
            input_context = tf.distribute.InputContext(
                num_replicas_in_sync=strategy.local_replicas(devices)
            )
        return official(params, input_context=input_context)

    task.build_inputs = build_inputs


def refuse_disagreement(
    devices: tf.distribute.Strategy, run_dir: Path, step: int, params: Any
) -> None:
    """Refuses to train when workers start from different steps or with different settings, which would hang or go wrong.

    Raises:
        UsageError: on every worker.
    """
    settings = json.dumps(params.as_dict(), default=str, sort_keys=True)
    compared = {
        "run_dir": zlib.crc32(str(run_dir).encode()),
        "settings": zlib.crc32(settings.encode()),
        "step": step,
    }
    for name, value in compared.items():
        if len(set(everyones(devices, value))) > 1:
            raise UsageError(
                f"{name}: the workers differ; start all with the same overrides and the same run_dir=<directory>, "
                "on a file system that they share"
            )


def meet(devices: tf.distribute.Strategy) -> None:
    """Barrier: returns once every worker has called it."""
    everyones(devices, 0)


def everyones(devices: tf.distribute.Strategy, value: int) -> list[int]:
    """Gathers one integer from every replica. Collective: every worker must call it."""
    if devices.num_replicas_in_sync == strategy.local_replicas(devices):
        return [value]
    gathered = _gathering(devices)(tf.constant([value], tf.int64))
    return [int(number) for number in gathered.numpy()]


@functools.cache
def _gathering(devices: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    # Traced once: outside a graph each call would be traced anew.
    return tf.function(
        lambda value: devices.gather(devices.run(tf.identity, args=(value,)), axis=0)
    )


@contextmanager
def watched(devices: tf.distribute.Strategy) -> Iterator[None]:
    """Turns TensorFlow's many ways of saying that another worker has gone into one.

    Raises:
        PeerGone: another worker has gone.
    """
    try:
        yield
    except (*GONE, faults.NotSaved) as error:
        alone = strategy.describe(devices)["workers"] == 1
        if alone or (isinstance(error, faults.NotSaved) and not isinstance(error.__cause__, GONE)):
            raise
        reason = " ".join(str(error).split())[:300]
        raise PeerGone(
            f"another worker has gone ({reason}); the same command on every worker resumes from the newest checkpoint"
        ) from error
