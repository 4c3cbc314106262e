"""Compares two sets of detection records, field by field, as the official decoder returns them.    Run by `benchmarks.data`."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import tensorflow as tf
from official.vision.dataloaders import tf_example_decoder


def decoded(folder: Path) -> dict[bytes, bytes]:
    """Serialized records by source id."""
    read = tf_example_decoder.TfExampleDecoder(include_mask=False).decode
    files = sorted(str(file) for file in folder.rglob("*.tfrecord"))
    records = {}
    for record in tf.data.TFRecordDataset(files):
        identity = read(record)["source_id"].numpy()
        records[identity] = record.numpy()
    return records


def main() -> None:
    """Prints counts of what is equal and what is not."""
    masks = sys.argv[3] == "1"
    theirs = decoded(Path(sys.argv[1]))
    ours = decoded(Path(sys.argv[2]))
    read = tf_example_decoder.TfExampleDecoder(include_mask=masks).decode
    counts: Counter[str] = Counter(images=len(theirs))
    counts["images_only_in_one"] = len(set(theirs) ^ set(ours))
    for identity in sorted(set(theirs) & set(ours)):
        official = _fields(read(theirs[identity]))
        own = _fields(read(ours[identity]))
        counts.update(_compared(official, own))
    print(json.dumps(counts))


def _fields(example: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in example.items()}


def _compared(official: dict[str, np.ndarray], own: dict[str, np.ndarray]) -> Counter[str]:
    """What is equal in one image."""
    counts: Counter[str] = Counter()
    boxes = official["groundtruth_boxes"].tolist()
    # The official tool drops a box that overhangs; here it is clipped to the image's edge.
    own_boxes = own["groundtruth_boxes"].tolist()
    kept = [number for number, box in enumerate(own_boxes) if box in boxes]
    counts["boxes_equal"] = len(kept)
    counts["boxes_clipped_here_dropped_there"] = len(own_boxes) - len(kept)
    counts["boxes_missing_here"] = len(boxes) - len(kept)
    for name, value in official.items():
        if name == "groundtruth_instance_masks_png":
            continue  # Another compression; the pixels are compared.
        again = own[name]
        if name.startswith("groundtruth"):
            again = again[kept]
        equal = np.array_equal(value, again)
        counts["fields_equal" if equal else f"fields_different {name}"] += 1
    return counts


if __name__ == "__main__":
    main()
