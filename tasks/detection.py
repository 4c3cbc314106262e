"""Object detection: boxes in [0, 1], classes from 1; with masks where the source has them. One record is

{"key": "139", "file": "000139.jpg", "id": 139, "image": b"\\xff\\xd8…", "sha256": "04ab…", "format": "jpeg", "height": 426, "width": 640,
 "objects": [{"box": (0.36, 0.50, 0.82, 0.93), "label": 62, "text": "chair", "area": 5480.5, "is_crowd": 0, "mask": b"\\x89PNG…"}]}

A box is (ymin, xmin, ymax, xmax). Either every object of a data set has a mask or none has.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tasks import _wire

VERSION = 1
METRIC = "AP"
# No figure of the evaluation is a share of its images.
SHARES: tuple[str, ...] = ()
# Model Garden task configurations that read these records.
GARDEN_TASKS = {
    "RetinaNetTask",
    "MaskRCNNTask",
    "YoloTask",
    "YoloV7Task",
    "DetrTask",
    "CenterNetTask",
}
# Whether a model is shown one picture at a time, as predict, export and serve do.
PICTURES = True
FIRST_LABEL = 1  # 0 is the background
SIDES = ("ymin", "xmin", "ymax", "xmax")  # in a box's order
parse = _wire.parse


def encode(record: Mapping[str, Any]) -> bytes:
    """Serializes one record as the `tf.train.Example` that Model Garden's `TfExampleDecoder` reads."""
    objects = record["objects"]
    return _wire.serialize(
        {
            **_wire.image(record),
            "image/object/bbox/ymin": [float(item["box"][0]) for item in objects],
            "image/object/bbox/xmin": [float(item["box"][1]) for item in objects],
            "image/object/bbox/ymax": [float(item["box"][2]) for item in objects],
            "image/object/bbox/xmax": [float(item["box"][3]) for item in objects],
            "image/object/class/label": [item["label"] for item in objects],
            "image/object/class/text": [item["text"].encode() for item in objects],
            "image/object/is_crowd": [item["is_crowd"] for item in objects],
            "image/object/area": [float(item["area"]) for item in objects],
            "image/object/mask": [item["mask"] for item in objects if item.get("mask") is not None],
        }
    )


def decode(serialized: bytes) -> dict[str, Any]:
    """Reads back a record, ours or another tool's with the official features.

    Raises:
        ValueError: a feature is missing or does not fit the others.
    """
    features = _wire.require(serialized, "image/encoded", "image/height", "image/width")
    sides = [features.get(f"image/object/bbox/{side}", []) for side in SIDES]
    labels = features.get("image/object/class/label", [])
    texts = [text.decode() for text in features.get("image/object/class/text", [])]
    count = len(labels)
    columns = {
        "box": list(zip(*sides, strict=True)),
        "label": labels,
        "text": texts or [""] * count,
        "area": features.get("image/object/area") or [0.0] * count,
        "is_crowd": features.get("image/object/is_crowd") or [0] * count,
        "mask": features.get("image/object/mask") or [None] * count,
    }
    lengths = {name: len(columns[name]) for name in columns}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"objects have columns of unequal length: {lengths}")
    rows = zip(*columns.values(), strict=True)
    objects = [dict(zip(columns, row, strict=True)) for row in rows]
    return {**_wire.head(features), "objects": objects}


def inputs(
    files: Mapping[str, str], labels: Sequence[str], formats: Collection[str]
) -> dict[str, Any]:
    """Override of node `task`: where the records are, and what follows from them.

    Without an annotation file the evaluator takes the ground truth from the records. The background counts as a class.

    Args:
        files: pattern of the TFRecord shards by split.
        labels: class names in the order of their integers, without the background.
        formats: image formats that occur; Model Garden's decoder takes them all.
    """
    node: dict[str, Any] = {
        "annotation_file": None,
        "model": {"num_classes": len(labels) + FIRST_LABEL},
    }
    for split in ("train", "validation"):
        if split in files:
            node[f"{split}_data"] = {"input_path": files[split]}
    return node
