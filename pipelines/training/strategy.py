"""Chooses the devices: the official distribution helper, after a look at what is there."""

import glob
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from official.common import distribute_utils

from pipelines.training import upstream
from pipelines.usage import UsageError


def build(runtime: Any, logical_cpus: int | None = None) -> tf.distribute.Strategy:
    """Returns the strategy that a Model Garden `runtime` node asks for; -1 GPUs become all that there are.

    To be called before TensorFlow's first operation, after which devices and workers can no longer be set up.

    Args:
        logical_cpus: devices that the CPU is split into, for `mirrored`.

    Raises:
        UsageError: the devices are not there, saying what was looked for and what was found.
    """
    if logical_cpus:
        return _split_cpu(runtime, logical_cpus)
    _choose_gpus(runtime)
    is_local_tpu = runtime.tpu in (None, "", "local")
    if runtime.distribution_strategy == "tpu" and is_local_tpu and not _tpu_devices():
        raise UsageError(
            "runtime.distribution_strategy=tpu: this machine has no TPU (looked for /dev/accel*, /dev/vfio/*); name one with "
            "runtime.tpu=<name or address>, or train on the CPU: RUNTIME=cpu"
        )
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # The helper's own use of a deprecated name is not the user's.
    try:
        return distribute_utils.get_distribution_strategy(
            distribution_strategy=runtime.distribution_strategy,
            all_reduce_alg=runtime.all_reduce_alg,
            num_gpus=runtime.num_gpus,
            tpu_address=runtime.tpu,
        )
    except (ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:400]
        raise UsageError(
            f"runtime.distribution_strategy={runtime.distribution_strategy}: {reason}\n"
            f"look for devices with: make doctor; or train on the CPU: RUNTIME=cpu"
        ) from error
    finally:
        logger.setLevel(level)


def _choose_gpus(runtime: Any) -> None:
    gpus = tf.config.list_physical_devices("GPU")
    is_all = runtime.num_gpus < 0
    asked = "all GPUs" if is_all else f"{runtime.num_gpus} GPU"
    if is_all:
        runtime.num_gpus = len(gpus)
    if runtime.num_gpus > len(gpus) or (is_all and not gpus):
        raise UsageError(
            f"runtime.num_gpus: {asked} asked for, TensorFlow sees {len(gpus)}; "
            f"look with: make doctor; or train on the CPU: RUNTIME=cpu"
        )
    if runtime.distribution_strategy == "multi_worker_mirrored":
        # It takes every device that it sees.
        tf.config.set_visible_devices(gpus[: runtime.num_gpus], "GPU")


def _split_cpu(runtime: Any, number: int) -> tf.distribute.Strategy:
    if runtime.distribution_strategy != "mirrored" or number < 2:
        raise UsageError(
            f"logical_cpus={number}: two or more, and with runtime=mirrored only; leave it out otherwise"
        )
    runtime.num_gpus = 0
    # The official helper's `mirrored` without GPUs is one CPU.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * number
    )
    return tf.distribute.MirroredStrategy([f"CPU:{place}" for place in range(number)])


def local_replicas(strategy: tf.distribute.Strategy) -> int:
    """Replicas of this process."""
    return upstream.local_replicas(strategy)


def describe(strategy: tf.distribute.Strategy) -> Mapping[str, int]:
    """How many replicas share a batch, and in how many processes: sums are split by them."""
    replicas = strategy.num_replicas_in_sync
    return {"replicas": replicas, "workers": replicas // local_replicas(strategy)}


def refuse_uneven(params: Any, strategy: tf.distribute.Strategy, examples: int) -> None:
    """Refuses batches that the replicas cannot share; `examples` are those of the validation split.

    Raises:
        UsageError: naming the nearest sizes that they can share.
    """
    task = params.task
    steps = params.trainer.validation_steps
    here = local_replicas(strategy)
    batch, replicas = task.train_data.global_batch_size, strategy.num_replicas_in_sync
    if batch % replicas:
        raise _unshared(
            "train_data",
            batch,
            replicas,
            [batch // replicas * replicas, (batch // replicas + 1) * replicas],
        )
    batch = task.validation_data.global_batch_size
    if batch % here or (
        0 < examples < steps * batch and not _leaves_none_out(batch, here, examples)
    ):
        fitting = [
            size
            for size in range(here, 2 * batch + here + 1, here)
            if _leaves_none_out(size, here, examples)
        ]
        nearest = sorted(fitting, key=lambda size: abs(size - batch))[:2]
        raise _unshared(
            "validation_data",
            batch,
            here,
            sorted(nearest),
            f" on {examples} examples, the last ones included",
        )


def _leaves_none_out(batch: int, replicas: int, examples: int) -> bool:
    """Whether the last, smaller batch leaves no replica without an example: averages and some operations fail on none."""
    last = (examples - 1) % batch + 1
    return last > batch // replicas * (replicas - 1)


def _unshared(
    node: str, batch: int, replicas: int, fitting: list[int], where: str = ""
) -> UsageError:
    sizes = " or ".join(str(size) for size in fitting if size)
    advice = f"set it to {sizes}" if sizes else "no size fits; use fewer devices"
    return UsageError(
        f"task.{node}.global_batch_size: {batch} cannot be shared by {replicas} replicas{where}; {advice}"
    )


def _tpu_devices() -> list[str]:
    # TensorFlow's own look-up waits minutes for a cloud's metadata server where there is none.
    return glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
