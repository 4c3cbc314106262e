"""Video classification: one label per clip, counted from 0; a clip is its frames. One record is

{"key": "waving/0007", "file": "waving/0007", "id": 812, "image": b"\\xff\\xd8…", "frames": [b"\\xff\\xd8…", b"\\xff\\xd8…"],
 "sha256": "04ab…", "format": "jpeg", "height": 32, "width": 32, "label": 3, "text": "waving"}

The image is the first frame, and the digest that of all frames, one behind the other.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tasks import _wire

VERSION = 1
METRIC = "accuracy"
# Figures of the evaluation that are a share of its clips, each right or wrong by itself.
SHARES = ("accuracy", "top_1_accuracy", "top_5_accuracy")
# Model Garden task configurations that read these records.
GARDEN_TASKS = {"VideoClassificationTask"}
# Whether a model is shown one picture at a time, as predict, export and serve do.
PICTURES = False
FIRST_LABEL = 0
FRAMES = "image/encoded"
LABEL = "clip/label/index"
parse = _wire.parse


def encode(record: Mapping[str, Any]) -> bytes:
    """Serializes one record as the `tf.train.SequenceExample` that Model Garden's video decoder reads.

    The other names are MediaSequence's, from which the official ones come.
    """
    return _wire.serialize_sequence(
        {
            "clip/media_id": [record["key"].encode()],
            "clip/data_path": [record["file"].encode()],
            LABEL: [record["label"]],
            "clip/label/string": [record["text"].encode()],
            "clip/key/sha256": [record["sha256"].encode()],
            "image/format": [record["format"].encode()],
            "image/height": [record["height"]],
            "image/width": [record["width"]],
        },
        {FRAMES: record["frames"]},
    )


def decode(serialized: bytes) -> dict[str, Any]:
    """Reads back a record, ours or another tool's with the official features.

    Raises:
        ValueError: a feature is missing or does not fit the others.
    """
    context, lists = _wire.parse_sequence(serialized)
    frames = lists.get(FRAMES)
    labels = context.get(LABEL, [])
    if not frames:
        raise ValueError(f"no list of frames {FRAMES}")
    if len(labels) != 1:
        raise ValueError(f"{LABEL} has {len(labels)} values; a clip has one label")
    return {
        "file": _wire.text(context, "clip/data_path"),
        "format": _wire.text(context, "image/format"),
        "height": _wire.size(context, "image/height"),
        "width": _wire.size(context, "image/width"),
        "image": frames[0],
        "frames": frames,
        "sha256": _wire.text(context, "clip/key/sha256"),
        "label": labels[0],
        "text": _wire.text(context, "clip/label/string"),
    }


def inputs(
    files: Mapping[str, str], labels: Sequence[str], formats: Collection[str]
) -> dict[str, Any]:
    """Override of node `task`: where the records are, and what follows from them.

    Args:
        files: pattern of the TFRecord shards by split.
        labels: class names in the order of their integers.
        formats: formats of the frames; Model Garden's decoder takes them all.
    """
    node: dict[str, Any] = {}
    for split in ("train", "validation"):
        if split in files:
            node[f"{split}_data"] = {"input_path": files[split], "num_classes": len(labels)}
    return node
