"""What an exported file says of itself: where it comes from, what it wants to be shown, what its answers mean."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import message

from pipelines.shipping.formats import NO_ONNX, has_onnx
from pipelines.usage import UsageError

FILE = "trellis.json"  # in a SavedModel's assets, and in the archive behind a TFLite model
LABELS = "labels.txt"
DATE = (
    1980,
    1,
    1,
    0,
    0,
    0,
)  # the earliest of an archive: equal models are equal files
# In 0 to 255, as the official parsers subtract and divide.
MEAN = [0.485 * 255, 0.456 * 255, 0.406 * 255]
STDDEV = [0.229 * 255, 0.224 * 255, 0.225 * 255]


def shown(kind: str, params: Any) -> dict[str, Any]:
    """What the evaluations of a run do to a picture before the model sees it.

    Args:
        kind: name of the vision task.
        params: Model Garden's experiment configuration.
    """
    data = params.task.validation_data
    size = list(params.task.model.input_size[:2])
    described = {
        "size": size,
        "channels": "RGB",
        "resize": "bilinear",
        "keep_aspect_ratio": True,  # the rest is filled up with zeros, right and below
        "mean": MEAN,
        "stddev": STDDEV,
    }
    if kind == "classification":
        crop = data.center_crop_fraction if data.aug_crop else None
        described["keep_aspect_ratio"] = False
        described["center_crop_fraction"] = crop
        described["resize"] = data.tf_resize_method
    elif kind == "detection":
        described["keep_aspect_ratio"] = getattr(data.parser, "keep_aspect_ratio", True)
    else:
        described["size"] = list(data.output_size)
        described["keep_aspect_ratio"] = data.preserve_aspect_ratio
        described["mean"] = list(data.image_feature.mean)
        described["stddev"] = list(data.image_feature.stddev)
    return described


def boxes(params: Any, anchors: Mapping[str, Any]) -> dict[str, Any]:
    """What is needed to make boxes of a one-stage detector's own words.

    Args:
        anchors: boxes by level, rows x columns x (4 of each anchor).
    """
    generator = params.task.model.detection_generator
    flat = {}
    for level, values in anchors.items():
        flat[level] = values.reshape(-1, 4).tolist()
    return {
        "anchors": flat,
        "box_coder_weights": list(generator.box_coder_weights or [1.0, 1.0, 1.0, 1.0]),
        "pre_nms_top_k": generator.pre_nms_top_k,
        "nms_iou_threshold": generator.nms_iou_threshold,
        "max_num_detections": generator.max_num_detections,
    }


def append(model: bytes, document: Mapping[str, Any]) -> bytes:
    """A TFLite model with its metadata behind it, as TFLite's associated files are kept: any unzip opens it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        for name, text in texts(document).items():
            files.writestr(zipfile.ZipInfo(name, DATE), text)
    return model + archive.getvalue()


def texts(document: Mapping[str, Any]) -> dict[str, str]:
    """The files of the metadata: all of it as JSON, and the labels, a line each."""
    return {
        FILE: json.dumps(document, indent=1) + "\n",
        LABELS: "\n".join(document["labels"]) + "\n",
    }


def read(exported: Path) -> dict[str, Any]:
    """The metadata of an exported file or folder.

    Raises:
        UsageError: it has none, or what reads it is not installed.
    """
    if exported.suffix == ".onnx" and not has_onnx():
        raise UsageError(f"model: {exported}: {NO_ONNX}")
    try:
        return json.loads(_text(exported))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, message.DecodeError):
        raise UsageError(
            f"model: {exported} was not written by make export: it has no {FILE}"
        ) from None


def _text(exported: Path) -> str | bytes:
    if exported.is_dir():
        return (exported / "assets" / FILE).read_text()
    if exported.suffix == ".onnx":
        return _properties(exported)[FILE]
    with zipfile.ZipFile(exported) as files:
        return files.read(FILE)


def _properties(exported: Path) -> dict[str, str]:
    import onnx  # An extra.

    properties = onnx.load(exported).metadata_props
    return {entry.key: entry.value for entry in properties}
