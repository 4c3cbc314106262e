"""Prints a digest of what each of TensorFlow's operations gives on fixed input, to lay two processors side by side.

`python -m benchmarks.processors` runs it under one setting after another. Names of operations print those alone.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import caches

THREADS = "THREADS_PLAYED"  # for one operation
INNER = (64, 256, 576, 700, 1152, 4608)  # over which matrix products sum
Case = tuple[str, Callable[[], Any]]

_draws = np.random.Generator(np.random.Philox(0))


def normal(*shape: int) -> tf.Tensor:
    """Fixed input: numbers drawn with integers alone, alike on every processor."""
    values = _draws.standard_normal(shape)
    return tf.constant(values, tf.float32)


def elementwise() -> Iterator[Case]:
    """Functions of one number, and sums."""
    numbers = normal(100_000)
    positive = tf.abs(numbers) + 1e-3
    rows = tf.reshape(numbers, [-1, 100])
    for function in (tf.exp, tf.tanh, tf.sigmoid, tf.math.erf):
        yield function.__name__, partial(function, numbers)
    for function in (tf.math.log, tf.sqrt, tf.math.rsqrt, tf.math.reciprocal):
        yield function.__name__, partial(function, positive)
    yield "sum", lambda: tf.reduce_sum(numbers)
    yield "mean", lambda: tf.reduce_mean(rows, 0)
    yield "softmax", lambda: tf.nn.softmax(rows)
    yield "normal draws", lambda: tf.random.stateless_normal([10_000], [1, 2])


def products() -> Iterator[Case]:
    """Matrix products, over ever longer sums."""
    for inner in INNER:
        left = normal(96, inner)
        right = normal(inner, 96)
        yield f"product {inner}", partial(tf.matmul, left, right)
    queries = normal(8, 256, 32)
    yield "attention", lambda: tf.einsum("bqc,bkc->bqk", queries, queries)


def convolutions() -> Iterator[Case]:
    """Convolutions with both gradients, batch norm, resizing."""
    images = normal(8, 32, 32, 32)
    filters = normal(3, 3, 32, 64)
    gradient = normal(8, 32, 32, 64)
    each = normal(3, 3, 32, 1)
    scale = tf.ones([32])
    stride = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    raw = tf.raw_ops
    yield "convolution", lambda: tf.nn.conv2d(images, filters, 1, "SAME")
    yield "convolution 1x1", lambda: tf.nn.conv2d(images, filters[:1, :1], 1, "SAME")
    yield (
        "filter gradient",
        lambda: raw.Conv2DBackpropFilter(
            input=images,
            filter_sizes=filters.shape,
            out_backprop=gradient,
            **stride,
        ),
    )
    yield (
        "input gradient",
        lambda: raw.Conv2DBackpropInput(
            input_sizes=images.shape,
            filter=filters,
            out_backprop=gradient,
            **stride,
        ),
    )
    yield "depthwise", lambda: tf.nn.depthwise_conv2d(images, each, [1, 1, 1, 1], "SAME")
    yield (
        "depthwise gradient",
        lambda: raw.DepthwiseConv2dNativeBackpropFilter(
            input=images,
            filter_sizes=each.shape,
            out_backprop=images,
            **stride,
        ),
    )
    yield "batch norm", lambda: tf.compat.v1.nn.fused_batch_norm(images, scale, scale)[0]
    yield "resize", lambda: tf.image.resize(images, [47, 47])


def decoding() -> Iterator[Case]:
    """A JPEG, decoded both ways."""
    smooth = tf.image.resize(tf.abs(normal(12, 16, 3)) * 80, [97, 131])
    pixels = tf.cast(smooth, tf.uint8)
    encoded = tf.io.encode_jpeg(pixels, quality=90)
    for method in ("INTEGER_ACCURATE", "INTEGER_FAST"):
        yield f"jpeg {method}", partial(tf.io.decode_jpeg, encoded, dct_method=method)


def main() -> None:
    """Prints a line for each operation, or for those that are named."""
    named = sys.argv[1:]
    threads = int(os.environ.get(THREADS, "1"))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(f"caches: {os.environ.get(caches.VARIABLE, 'as they are')}")
    for cases in (elementwise(), products(), convolutions(), decoding()):
        for name, run in cases:
            if named and name not in named:
                continue
            content = run().numpy().tobytes()
            print(f"{name}\t{hashlib.sha256(content).hexdigest()}", flush=True)


if __name__ == "__main__":
    main()
