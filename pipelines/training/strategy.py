"""Chooses the devices: the official distribution helper, after a look at what is there."""

import glob
from typing import Any

import tensorflow as tf
from official.common import distribute_utils

from pipelines.config import UsageError


def build(runtime: Any) -> tf.distribute.Strategy:
    """Returns the strategy that a Model Garden `runtime` node asks for; -1 GPUs become all that there are.

    Raises:
        UsageError: the devices are not there, saying what was looked for and what was found.
    """
    found = tf.config.list_physical_devices("GPU")
    asked = runtime.num_gpus
    runtime.num_gpus = len(found) if asked < 0 else asked
    if runtime.num_gpus > len(found) or (asked < 0 and not found):
        raise UsageError(
            f"runtime.num_gpus: {'all GPUs' if asked < 0 else f'{asked} GPU'} asked for, TensorFlow sees {len(found)}; "
            f"look with: make doctor; or train on the CPU: RUNTIME=cpu"
        )
    if runtime.distribution_strategy == "tpu" and runtime.tpu in (None, "", "local") and not _tpu_devices():
        raise UsageError(
            "runtime.distribution_strategy=tpu: this machine has no TPU (looked for /dev/accel*, /dev/vfio/*); name one with "
            "runtime.tpu=<name or address>, or train on the CPU: RUNTIME=cpu"
        )
    try:
        return distribute_utils.get_distribution_strategy(
            distribution_strategy=runtime.distribution_strategy,
            all_reduce_alg=runtime.all_reduce_alg,
            num_gpus=runtime.num_gpus,
            tpu_address=runtime.tpu,
        )
    except (ValueError, tf.errors.OpError) as error:
        raise UsageError(
            f"runtime.distribution_strategy={runtime.distribution_strategy}: {' '.join(str(error).split())[:400]}\n"
            f"look for devices with: make doctor; or train on the CPU: RUNTIME=cpu"
        ) from error


def _tpu_devices() -> list[str]:
    # TensorFlow's own look-up waits minutes for a cloud's metadata server where there is none.
    return glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
