"""Segmentation of volumes: one class per voxel, counted from 0; 255 is none. One record is

{"key": "0007", "file": "0007.png", "id": 5512, "image": b"\\x89PNG…", "sha256": "04ab…", "format": "png", "height": 1024, "width": 32,
 "mask": b"\\x89PNG…", "depth": 32, "voxels": b"…", "where": b"…"}

Image and mask are the volume's slices, one below the other. Beside them lies what Model Garden's parser reads: float32
voxels by row, column and slice, and the same for each class, 1 where a voxel is of it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tasks import _wire, segmentation

VERSION = 1
METRIC = "val_generalized_dice"
# No figure of the evaluation is a share of its volumes.
SHARES: tuple[str, ...] = ()
# Model Garden task configurations that read these records.
GARDEN_TASKS = {"SemanticSegmentation3DTask"}
# Whether a model is shown one picture at a time, as predict, export and serve do.
PICTURES = False
FIRST_LABEL = 0
VOXELS = "volume/encoded"
WHERE = "volume/class/label"
parse = _wire.parse
decode = segmentation.decode


def encode(record: Mapping[str, Any]) -> bytes:
    """Serializes one record as a `tf.train.Example`: that of a segmentation, with what the 3-D parser reads."""
    return _wire.serialize(
        {
            **segmentation.features(record),
            "image/depth": [record["depth"]],
            VOXELS: [record["voxels"]],
            WHERE: [record["where"]],
        }
    )


def inputs(
    files: Mapping[str, str], labels: Sequence[str], formats: Collection[str]
) -> dict[str, Any]:
    """Override of node `task`: where the records are, and what follows from them.

    Args:
        files: pattern of the TFRecord shards by split.
        labels: class names in the order of their integers, the background among them.
        formats: of the slices' pictures, which Model Garden does not read.
    """
    classes = {"num_classes": len(labels)}
    node: dict[str, Any] = {"model": {**classes, "head": classes}}
    for split in ("train", "validation"):
        if split in files:
            node[f"{split}_data"] = {
                **classes,
                "input_path": files[split],
                "image_field_key": VOXELS,
                "label_field_key": WHERE,
            }
    return node
