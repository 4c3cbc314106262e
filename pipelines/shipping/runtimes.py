"""Exported files of one model, opened by what runs them elsewhere: LiteRT, ONNX Runtime."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

Runner = Callable[..., Mapping[str, np.ndarray]]  # asked by `images=`, prepared pixels


def opened(file: Path, threads: int | None = None) -> Runner:
    """What asks a file.

    Args:
        threads: None: as many as its runtime chooses.
    """
    if file.suffix == ".onnx":
        return _onnx(file, threads)
    from ai_edge_litert.interpreter import Interpreter  # Each runtime's memory is measured alone.

    return Interpreter(str(file), num_threads=threads).get_signature_runner()


def _onnx(file: Path, threads: int | None) -> Runner:
    import onnxruntime  # Likewise.

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(
        file,
        options,
        providers=["CPUExecutionProvider"],
    )
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> Mapping[str, np.ndarray]:
        answers = session.run(names, {"images": images})
        return dict(zip(names, answers, strict=True))

    return run
