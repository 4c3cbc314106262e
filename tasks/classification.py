"""Image classification: one label per image, counted from 0. One record is

{"key": "3/0007.png", "file": "3/0007.png", "id": 812, "image": b"\\x89PNG…", "sha256": "04ab…", "format": "png",
 "height": 32, "width": 32, "label": 3, "text": "3"}
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tasks import _wire

VERSION = 1
METRIC = "accuracy"
# Figures of the evaluation that are a share of its images, each right or wrong by itself.
SHARES = ("accuracy", "top_5_accuracy")
# Model Garden task configurations that read these records.
GARDEN_TASKS = {"ImageClassificationTask"}
# Whether a model is shown one picture at a time, as predict, export and serve do.
PICTURES = True
FIRST_LABEL = 0
parse = _wire.parse


def encode(record: Mapping[str, Any]) -> bytes:
    """Serializes one record as the `tf.train.Example` that Model Garden's classification decoder reads."""
    return _wire.serialize(
        {
            **_wire.image(record),
            "image/class/label": [record["label"]],
            "image/class/text": [record["text"].encode()],
        }
    )


def decode(serialized: bytes) -> dict[str, Any]:
    """Reads back a record, ours or another tool's with the official features.

    Raises:
        ValueError: a feature is missing or does not fit the others.
    """
    features = _wire.require(serialized, "image/encoded", "image/class/label")
    return {
        **_wire.head(features),
        "label": features["image/class/label"][0],
        "text": _wire.text(features, "image/class/text"),
    }


def inputs(
    files: Mapping[str, str], labels: Sequence[str], formats: Collection[str]
) -> dict[str, Any]:
    """Override of node `task`: where the records are, and what follows from them.

    Args:
        files: pattern of the TFRecord shards by split.
        labels: class names in the order of their integers.
        formats: image formats that occur; Model Garden decodes anything but JPEG only when told.
    """
    jpeg = set(formats) <= {"jpeg"}
    data = {
        split: {"input_path": files[split], "decode_jpeg_only": jpeg}
        for split in ("train", "validation")
        if split in files
    }
    return {
        "model": {"num_classes": len(labels)},
        **{f"{split}_data": node for split, node in data.items()},
    }
