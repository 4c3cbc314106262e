"""Semantic segmentation: one class per pixel, counted from 0; 255 is left out of loss and metric. One record is

{"key": "0007", "file": "0007.jpg", "id": 5512, "image": b"\\xff\\xd8…", "sha256": "04ab…", "format": "jpeg", "height": 128, "width": 128,
 "mask": b"\\x89PNG…"}
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tasks import _wire

VERSION = 1
METRIC = "mean_iou"
# No figure of the evaluation is a share of its images.
SHARES: tuple[str, ...] = ()
# Model Garden task configurations that read these records.
GARDEN_TASKS = {"SemanticSegmentationTask"}
# Whether a model is shown one picture at a time, as predict, export and serve do.
PICTURES = True
FIRST_LABEL = 0
parse = _wire.parse


def encode(record: Mapping[str, Any]) -> bytes:
    """Serializes one record as the `tf.train.Example` that Model Garden's segmentation decoder reads."""
    return _wire.serialize(features(record))


def features(record: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What a record has in it, by name."""
    return {
        **_wire.image(record),
        "image/segmentation/class/encoded": [record["mask"]],
        "image/segmentation/class/format": [b"png"],
    }


def decode(serialized: bytes) -> dict[str, Any]:
    """Reads back a record, ours or another tool's with the official features.

    Raises:
        ValueError: a feature is missing or does not fit the others.
    """
    features = _wire.require(
        serialized,
        "image/encoded",
        "image/height",
        "image/width",
        "image/segmentation/class/encoded",
    )
    return {**_wire.head(features), "mask": features["image/segmentation/class/encoded"][0]}


def inputs(
    files: Mapping[str, str], labels: Sequence[str], formats: Collection[str]
) -> dict[str, Any]:
    """Override of node `task`: where the records are, and what follows from them.

    Args:
        files: pattern of the TFRecord shards by split.
        labels: class names in the order of their integers, the background among them where the masks have one.
        formats: image formats that occur; Model Garden's decoder takes them all.
    """
    data = {
        f"{split}_data": {"input_path": files[split]}
        for split in ("train", "validation")
        if split in files
    }
    return {"model": {"num_classes": len(labels)}, **data}
