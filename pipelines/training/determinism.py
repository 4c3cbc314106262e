"""Fixes every source of chance: seeds, the order of the data, the threads that sum."""

import functools
import os
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from pipelines.config import Config, Threads


def cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pin_threads(threads: Threads) -> Threads:
    """Sets TensorFlow's thread pools, before its first operation; returns the counts in force.

    Sums are split by thread, so equal counts are part of what makes two runs equal in every bit.
    """
    pinned = Threads(intra_op=threads.intra_op or cores(), inter_op=threads.inter_op or cores())
    tf.config.threading.set_intra_op_parallelism_threads(pinned.intra_op)
    tf.config.threading.set_inter_op_parallelism_threads(pinned.inter_op)
    return pinned


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy, TensorFlow's operations and Keras's initialisers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    tf_keras.utils.set_random_seed(seed)


def describe(cfg: Config) -> Mapping[str, Any]:
    """Returns the determinism class: what, beside config, data and seed, the bits of a result depend on."""
    return {
        "tensorflow": tf.version.VERSION,
        "compiler": tf.version.COMPILER_VERSION,
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "threads": {"intra_op": cfg.threads.intra_op, "inter_op": cfg.threads.inter_op},
        "devices": sorted({device.device_type for device in tf.config.list_logical_devices()}),
        "strategy": cfg.runtime.get("distribution_strategy"),
        "exact": cfg.determinism,
    }


def ordered(build_inputs: Callable[..., tf.data.Dataset]) -> Callable[..., tf.data.Dataset]:
    """Wraps a task's `build_inputs` so that the same seed gives the same batches.

    Augmentation operations hold state, so they must run one after the other: one thread, nothing tuned while running.
    Plain op determinism does not serve: its rewrite of the input pipeline breaks the official detection parsers.
    """

    @functools.wraps(build_inputs)
    def build(*args: Any, **kwargs: Any) -> tf.data.Dataset:
        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False
        options.threading.private_threadpool_size = 1
        return build_inputs(*args, **kwargs).with_options(options)

    return build
