"""Writes one format of a model: SavedModel, TF Hub or TFLite, by the official converter, ONNX by tf2onnx, with its metadata inside."""

import csv
import hashlib
import io
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from official.vision.serving import export_tflite_lib

from pipelines.outside import reason
from pipelines.shipping import calibration, metadata
from pipelines.shipping.formats import ONNX, QUANTIZED
from pipelines.shipping.graphs import (
    Graph,
    Preprocess,
    is_one_stage,
)
from pipelines.system import durable
from pipelines.usage import UsageError

SERVING = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


class Refused(UsageError):
    """A format that a model cannot have; the message says why."""


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        kind: name of the vision task.
        params: Model Garden's experiment configuration.
        model: with the weights to ship.
        document: the metadata, without what a format adds.
        calibration: bytes of the training pictures that int8 is calibrated on.
        seed: that they were drawn by.
    """

    kind: str
    params: Any
    model: Any
    preprocess: Preprocess
    document: Mapping[str, Any]
    calibration: Sequence[bytes] = ()
    seed: int = 0

    def graph(self, batch_size: int | None) -> Graph:
        """What its files are made of; None: for batches of any size."""
        return Graph(
            self.params,
            self.model,
            self.preprocess,
            batch_size=batch_size,
        )


def write(source: Source, form: str, folder: Path) -> Path:
    """Writes a format into a folder and returns its file, or its folder.

    Raises:
        Refused: the model cannot have this format.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if form == "saved_model":
        return _saved_model(source, folder / "saved_model")
    if form == "tfhub":
        return _hub(source, folder / "tfhub")
    if form == ONNX:
        return _onnx(source, folder / "onnx.onnx")
    return _lite(source, form, folder / f"{form}.tflite")


def _saved_model(source: Source, destination: Path) -> Path:
    graph = source.graph(batch_size=None)
    with tempfile.TemporaryDirectory() as scratch:
        assets = _assets(source.document, Path(scratch))
        graph.save(
            str(destination),
            {"image_bytes": SERVING, "tflite": "model"},
            assets,
        )
    # It holds a number drawn at random.
    (destination / "fingerprint.pb").unlink(missing_ok=True)
    return destination


def _assets(document: Mapping[str, Any], scratch: Path) -> dict[str, str]:
    texts = metadata.texts(document)
    for name, text in texts.items():
        (scratch / name).write_text(text)
    return {Path(name).stem: str(scratch / name) for name in texts}


def _hub(source: Source, destination: Path) -> Path:
    """The Keras model as the official exporter for TF Hub saves it, with the weights that were evaluated."""
    source.model.save(
        str(destination),
        include_optimizer=False,
        save_format="tf",
    )
    (destination / "fingerprint.pb").unlink(missing_ok=True)
    assets = destination / "assets"
    assets.mkdir(exist_ok=True)
    _assets(source.document, assets)
    return destination


def _lite(source: Source, form: str, destination: Path) -> Path:
    graph = source.graph(batch_size=1)
    document = _document(source)
    if source.calibration:
        document["calibration"] = {
            "pictures": len(source.calibration),
            "seed": source.seed,
            "sha256": digest(source.calibration),
        }
    with tempfile.TemporaryDirectory() as scratch:
        graph.save(scratch, {"tflite": SERVING}, {})
        model = converted(source, form, scratch)
    durable.write_whole(destination, metadata.append(model, document))
    return destination


def _document(source: Source) -> dict[str, Any]:
    """The metadata of a file that is shown prepared pixels."""
    document = dict(source.document)
    if is_one_stage(source.model):
        document["boxes"] = metadata.boxes(source.params, _anchors(source.preprocess))
    return document


def _onnx(source: Source, destination: Path) -> Path:
    from pipelines.shipping import exchange  # Packages of an extra.

    graph = source.graph(batch_size=1)
    document = _document(source)
    try:
        model = exchange.converted(graph, document["input"]["size"], document)
    except Exception as error:  # tf2onnx and ONNX raise many of their own.
        raise _refused(error) from error
    durable.write_whole(destination, model)
    return destination


def converted(source: Source, form: str, saved_model: str) -> bytes:
    """What the official converter makes of a SavedModel with prepared pixels for its input.

    Raises:
        Refused: an operation has no place in the format.
    """
    try:
        with calibration.of_loops(_network(source.model)):
            return export_tflite_lib.convert_tflite_model(
                saved_model_dir=saved_model,
                quant_type=QUANTIZED[form],
                params=source.params,
                task=Calibration(source.preprocess, source.calibration),
                calibration_steps=len(source.calibration),
            )
    except Exception as error:  # The converter raises its own errors, from C++ and MLIR.
        raise _refused(error) from error


def _network(model: Any) -> list[str]:
    """Names of the layers of a detector of two stages that are a network; its others sort out boxes."""
    names = []
    for part in tf.nest.flatten(getattr(model, "checkpoint_items", {})):
        if isinstance(part, tf.Module):
            names.append(part.name)
    return names


def _refused(error: Exception) -> Refused:
    return Refused(f"the converter refuses: {reason(error, 300)}")


def most_lost(source: Source) -> str:
    """The layer that int8 does most harm to: its error by the step of its numbers, as TensorFlow's debugger measures it."""
    graph = source.graph(batch_size=1)
    parts = _network(source.model)
    calibrating = Calibration(source.preprocess, source.calibration)

    def pictures() -> Iterator[list[Any]]:
        for image, _ in calibrating.build_inputs(None):
            yield [image]

    with tempfile.TemporaryDirectory() as scratch, calibration.of_loops(parts):
        graph.save(scratch, {"tflite": SERVING}, {})
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = pictures
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=pictures
        )
        debugger.run()
        text = io.StringIO()
        debugger.layer_statistics_dump(text)
    layers = list(csv.DictReader(io.StringIO(text.getvalue())))
    worst = max(layers, key=_harm)
    return f"{worst['op_name']} {worst['tensor_name']} (error {_harm(worst):.1f} steps)"


def _harm(layer: Mapping[str, str]) -> float:
    error = math.sqrt(float(layer["mean_squared_error"]))
    return error / max(float(layer["scale"]), 1e-12)


def operations(exported: Path) -> dict[str, Any]:
    """What the ship card says of the operations of an int8 model."""
    count, names = calibration.operations(exported.read_bytes())
    return {"operations": count, "float_operations": names}


class Calibration:
    """Stands for the task in the official int8 conversion, which would calibrate on augmented training images."""

    def __init__(self, preprocess: Preprocess, contents: Sequence[bytes]) -> None:
        self._preprocess = preprocess
        self._contents = contents

    def build_inputs(self, params: Any) -> tf.data.Dataset:
        """Training pictures as an evaluation would show them, one at a time."""
        pictures = tf.data.Dataset.from_tensor_slices(list(self._contents))
        return pictures.map(self._preprocess).batch(1)


def digest(contents: Sequence[bytes]) -> str:
    """SHA-256 over the pictures, in order."""
    return hashlib.sha256(b"".join(contents)).hexdigest()


def _anchors(preprocess: Preprocess) -> dict[str, np.ndarray]:
    """The anchors of each level, which depend on the size of the input alone."""
    empty = tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8))
    _, shapes = tf.function(preprocess)(empty)
    return {level: boxes.numpy() for level, boxes in shapes["anchor_boxes"].items()}


def sha256(exported: Path) -> str:
    """Digest of a file, or over the names and digests of a folder's files."""
    if exported.is_file():
        return hashlib.sha256(exported.read_bytes()).hexdigest()
    total = hashlib.sha256()
    for file in sorted(exported.rglob("*")):
        if file.is_file():
            name = os.fspath(file.relative_to(exported))
            content = hashlib.sha256(file.read_bytes())
            total.update(f"{name}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


def size(exported: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if exported.is_file():
        return exported.stat().st_size
    return sum(file.stat().st_size for file in exported.rglob("*") if file.is_file())
