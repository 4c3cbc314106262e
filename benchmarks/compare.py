"""Compares two sets of detection records, field by field, as the official decoder returns them.    Run by `benchmarks.data`."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import tensorflow as tf
from official.vision.dataloaders import tf_example_decoder


def decoded(folder: Path, *, masks: bool) -> dict[bytes, bytes]:
    """Serialized records by source id."""
    read = tf_example_decoder.TfExampleDecoder(include_mask=False).decode
    files = sorted(str(file) for file in folder.rglob("*.tfrecord"))
    return {
        read(record)["source_id"].numpy(): record.numpy()
        for record in tf.data.TFRecordDataset(files)
    }


def main() -> None:
    """Prints counts of what is equal and what is not."""
    theirs, ours, masks = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "1"
    read = tf_example_decoder.TfExampleDecoder(include_mask=masks).decode
    one, two = decoded(theirs, masks=masks), decoded(ours, masks=masks)
    counts: Counter[str] = Counter(images=len(one), images_only_in_one=len(set(one) ^ set(two)))
    for identity in sorted(set(one) & set(two)):
        left, right = (
            {name: value.numpy() for name, value in read(records[identity]).items()}
            for records in (one, two)
        )
        # The official tool drops a box that overhangs; here it is clipped to the image's edge.
        kept = [
            number
            for number, box in enumerate(right["groundtruth_boxes"])
            if box.tolist() in left["groundtruth_boxes"].tolist()
        ]
        counts["boxes_equal"] += len(kept)
        counts["boxes_clipped_here_dropped_there"] += len(right["groundtruth_boxes"]) - len(kept)
        counts["boxes_missing_here"] += len(left["groundtruth_boxes"]) - len(kept)
        for name, value in left.items():
            if name == "groundtruth_instance_masks_png":
                continue  # Another compression; the pixels are compared.
            other = right[name][kept] if name.startswith("groundtruth") else right[name]
            counts[
                "fields_equal" if np.array_equal(value, other) else f"fields_different {name}"
            ] += 1
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
