"""How long an exported file takes for a picture, and how much memory, in a process that holds nothing else.

python -m pipelines.shipping.latency <file> <threads> <height> <width>
"""

import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.shipping import runtimes

WARM_UP = 10
RUNS = 60
LONGEST_S = 20.0  # of all runs together


def main() -> None:
    """Prints one line of JSON: milliseconds at the 50th and 95th percentile, runs, and the peak of memory in MB."""
    file, threads, height, width = sys.argv[1:]
    size = (int(height), int(width))
    once = _opened(Path(file), int(threads), size)
    print(json.dumps(_measured(once)))


def _opened(exported: Path, threads: int, size: tuple[int, int]) -> Callable[[], None]:
    """What shows an exported file a picture."""
    if exported.name == "tfhub":
        return _hub(exported, threads, size)
    if exported.is_dir():
        return _saved_model(exported, threads, size)
    return _file(exported, threads, size)


def _measured(once: Callable[[], None]) -> dict[str, float]:
    for _ in range(WARM_UP):
        once()
    times: list[float] = []
    until = time.perf_counter() + LONGEST_S
    while len(times) < RUNS and time.perf_counter() < until:
        start = time.perf_counter()
        once()
        times.append(1000 * (time.perf_counter() - start))
    p50, p95 = np.percentile(times, [50, 95])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "p50_ms": round(float(p50), 3),
        "p95_ms": round(float(p95), 3),
        "runs": len(times),
        "peak_mb": round(peak, 1),
    }


def _pixels(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


def _file(file: Path, threads: int, size: tuple[int, int]) -> Callable[[], None]:
    runner = runtimes.opened(file, threads)
    images = _prepared(size)

    def once() -> None:
        runner(images=images)

    return once


def _prepared(size: tuple[int, int]) -> np.ndarray:
    image = (_pixels(size).astype(np.float32) - 128) / 64
    return image[None]


def _tensorflow(threads: int) -> Any:
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import tensorflow as tf  # In the process of a SavedModel alone.

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return tf


def _hub(folder: Path, threads: int, size: tuple[int, int]) -> Callable[[], None]:
    tf = _tensorflow(threads)
    loaded = tf.saved_model.load(str(folder))
    images = tf.constant(_prepared(size))

    def once() -> None:
        loaded(images, training=False)

    return once


def _saved_model(folder: Path, threads: int, size: tuple[int, int]) -> Callable[[], None]:
    from PIL import Image  # In the process of a SavedModel alone.

    tf = _tensorflow(threads)
    content = io.BytesIO()
    Image.fromarray(_pixels(size)).save(content, "JPEG")
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures["serving_default"]
    pictures = tf.constant([content.getvalue()])

    def once() -> None:
        assert loaded is not None  # It must live as long as its signature.
        signature(images=pictures)

    return once


if __name__ == "__main__":
    main()
