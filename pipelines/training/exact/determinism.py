"""Fixes every source of chance: seeds, the order of the data, the threads that sum."""

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from pipelines.config import Config, Threads
from pipelines.system import arithmetic, kernels, processes
from pipelines.training import upstream
from pipelines.training.exact import leftovers
from pipelines.training.exact.order import Stream
from pipelines.training.exact.randomness import Draws
from pipelines.usage import UsageError


def counted(threads: Threads, input_size: Sequence[int | None]) -> Threads:
    """Thread counts, with those of the rule in place of what is not chosen.

    Args:
        input_size: the model's.
    """
    side_by_side = threads.inter_op or processes.cores()
    each = threads.intra_op or kernels.intra_op(side_by_side, input_size)
    return Threads(intra_op=each, inter_op=side_by_side)


def pin_threads(threads: Threads, input_size: Sequence[int | None]) -> Threads:
    """Sets TensorFlow's thread pools, before its first operation; returns the counts in force.

    Sums are split by thread, so equal counts are part of what makes two runs equal in every bit.

    Args:
        input_size: the model's, from which follows what is not chosen.
    """
    pinned = counted(threads, input_size)
    tf.config.threading.set_intra_op_parallelism_threads(pinned.intra_op)
    tf.config.threading.set_inter_op_parallelism_threads(pinned.inter_op)
    return pinned


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy, TensorFlow's operations and Keras's initialisers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    tf_keras.utils.set_random_seed(seed)
    # Drop-out then draws with plain operations, which `stepwise` can tie to the step; a generator would be state to save.
    tf_keras.backend.experimental.disable_tf_random_generator()


def describe(cfg: Config) -> Mapping[str, Any]:
    """Returns the determinism class: what, beside config, data and seed, the bits of a result depend on."""
    devices = {device.device_type for device in tf.config.list_logical_devices()}
    return {
        **arithmetic.describe(),
        "tensorflow": tf.version.VERSION,
        "tensorflow_build": _build(),
        "compiler": tf.version.COMPILER_VERSION,
        "numpy": np.__version__,
        "numpy_build": _numpy_build(),
        "onednn_in_force": "on" if upstream.onednn_in_force() else "off",
        "libjpeg": upstream.libjpeg_version(),
        "threads": asdict(cfg.threads),
        "devices": sorted(devices),
        "accelerators": _accelerators(),
        "strategy": cfg.runtime.get("distribution_strategy"),
        "exact": cfg.determinism,
    }


def _build() -> dict[str, Any]:
    """TensorFlow's source, and the libraries for GPUs that it was built with."""
    built = tf.sysconfig.get_build_info()
    names = ("cuda_version", "cudnn_version", "rocm_version")
    described = {
        "git": tf.version.GIT_VERSION,
        "binaries": arithmetic.binaries("tensorflow"),
    }
    for name in names:
        if built.get(name):
            described[name] = built[name]
    return described


def _numpy_build() -> dict[str, Any]:
    """NumPy's compiler, its library for linear algebra, and the vector extensions that it uses here."""
    built = np.show_config(mode="dicts")
    return {
        "blas": _named(built["Build Dependencies"].get("blas", {})),
        "compiler": _named(built["Compilers"].get("c", {})),
        "binaries": arithmetic.binaries("numpy"),
        "extensions": " ".join(built.get("SIMD Extensions", {}).get("found", ())),
    }


def _named(part: Mapping[str, Any]) -> str:
    words = (part.get("name"), part.get("version"))
    return " ".join(word for word in words if word)


def _accelerators() -> list[str]:
    """Kinds of GPU in use: name and compute capability."""
    names = set()
    for device in tf.config.get_visible_devices("GPU"):
        details = tf.config.experimental.get_device_details(device)
        name = details.get("device_name", "GPU")
        capability = ".".join(map(str, details.get("compute_capability", ())))
        names.add(f"{name} {capability}".strip())
    return sorted(names)


def repeatable(task: Any, stream: Stream) -> None:
    """Makes a task's input follow the stream; input that cannot follow it is at least the same in every run.

    Plain op determinism does not serve: its rewrite of the input pipeline breaks the official detection parsers.
    """
    official = task.build_inputs

    @functools.wraps(official)
    def build_inputs(params: Any, *args: Any, **kwargs: Any) -> tf.data.Dataset:
        with stream.reading():
            dataset = official(params, *args, **kwargs)
        options = tf.data.Options()
        options.deterministic = True
        if params.is_training and not stream.followed:
            # Augmentation operations hold state here, so they must run one after the other: one thread, nothing tuned.
            options.autotune.enabled = False
            options.threading.private_threadpool_size = 1
            draws = leftovers.in_dataset(dataset)
            stream.refusal = leftovers.refusal(draws, "the input pipeline")
        return dataset.with_options(options)

    task.build_inputs = build_inputs


def stepwise(task: Any, stream: Stream, step: tf.Variable) -> None:
    """Ties what a training step draws at random (drop-out, sampling of proposals) to the global step and the replica.

    A step that draws in another way is not traced to its end; `stream.refusal` then says why.
    """
    official = task.train_step

    @upstream.plain
    @functools.wraps(official)
    def train_step(*args: Any, **kwargs: Any) -> Any:
        replicas = tf.distribute.get_replica_context()
        replica = tf.cast(replicas.replica_id_in_sync_group, tf.int64)
        position = tf.cast(step, tf.int64) * replicas.num_replicas_in_sync
        position += replica
        with Draws(stream.seed, "step", position):
            logs = upstream.converted(official)(*args, **kwargs)
        draws = leftovers.in_graph(tf.compat.v1.get_default_graph())
        stream.refusal = leftovers.refusal(draws, "the training step")
        if stream.refusal:
            raise UsageError(stream.refusal)
        return logs

    task.train_step = train_step
