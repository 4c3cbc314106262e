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

import numpy as np

WARM_UP = 10
RUNS = 60
LONGEST_S = 20.0  # of all runs together


def main() -> None:
    """Prints one line of JSON: milliseconds at the 50th and 95th percentile, runs, and the peak of memory in MB."""
    file, threads, height, width = sys.argv[1:]
    size = (int(height), int(width))
    if Path(file).is_dir():
        once = _saved_model(file, int(threads), size)
    else:
        once = _lite(file, int(threads), size)
    print(json.dumps(_measured(once)))


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


def _lite(file: str, threads: int, size: tuple[int, int]) -> Callable[[], None]:
    from ai_edge_litert.interpreter import Interpreter  # In the process of a TFLite model alone.

    interpreter = Interpreter(file, num_threads=threads)
    runner = interpreter.get_signature_runner()
    image = (_pixels(size).astype(np.float32) - 128) / 64

    def once() -> None:
        runner(images=image[None])

    return once


def _saved_model(folder: str, threads: int, size: tuple[int, int]) -> Callable[[], None]:
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import tensorflow as tf  # In the process of a SavedModel alone.
    from PIL import Image  # Likewise.

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    content = io.BytesIO()
    Image.fromarray(_pixels(size)).save(content, "JPEG")
    loaded = tf.saved_model.load(folder)
    signature = loaded.signatures["serving_default"]
    pictures = tf.constant([content.getvalue()])

    def once() -> None:
        assert loaded is not None  # It must live as long as its signature.
        signature(images=pictures)

    return once


if __name__ == "__main__":
    main()
