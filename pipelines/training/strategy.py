"""Chooses the devices: the official distribution helper, after a look at what is there."""

from typing import Any

import tensorflow as tf
from official.common import distribute_utils

from pipelines.config import UsageError


def build(runtime: Any) -> tf.distribute.Strategy:
    """Returns the strategy that a Model Garden `runtime` node asks for.

    Raises:
        UsageError: the devices are not there, saying what was looked for and what was found.
    """
    found = tf.config.list_physical_devices("GPU")
    if runtime.num_gpus > len(found):
        raise UsageError(f"runtime.num_gpus: {runtime.num_gpus} asked for, TensorFlow sees {len(found)}; try runtime=cpu")
    try:
        return distribute_utils.get_distribution_strategy(
            distribution_strategy=runtime.distribution_strategy,
            all_reduce_alg=runtime.all_reduce_alg,
            num_gpus=runtime.num_gpus,
            tpu_address=runtime.tpu,
        )
    except (ValueError, tf.errors.OpError) as error:
        raise UsageError(f"runtime.distribution_strategy={runtime.distribution_strategy}: {error}") from error
