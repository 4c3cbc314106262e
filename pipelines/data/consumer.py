"""The consumer's side of validation: Model Garden's decoder and parser over built records.    Run by `validation`."""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from official.vision.dataloaders import classification_input, retinanet_input, segmentation_input, tf_example_decoder

from pipelines.data import manifest
from pipelines.data.manifest import Manifest

SIZE = 64  # of the parsed image; enough to run the parser


def check(built: Manifest, limit: int) -> list[str]:
    """What is wrong with the records, one line each.

    Args:
        limit: records of each shard to read; 0 for all.
    """
    judge = JUDGES[built.task]
    parse = parser(built)
    problems = []
    for file, number, record in records(built, limit):
        try:
            problems += [f"{file} record {number}: {problem}" for problem in judge(record, built)]
            parse(record)
        except (tf.errors.OpError, ValueError) as error:
            problems.append(f"{file} record {number}: {str(error).splitlines()[0]}")
    return problems


def records(built: Manifest, limit: int) -> Iterator[tuple[str, int, tf.Tensor]]:
    """(file, number, serialized record) of every shard, the first `limit` of each."""
    for split in built.splits.values():
        for shard in split.shards:
            dataset = tf.data.TFRecordDataset(f"{built.directory}/{shard.file}" if "/" not in shard.file else shard.file)
            for number, record in enumerate(dataset.take(limit or -1)):
                yield shard.file, number, record


def _classification(record: tf.Tensor, built: Manifest) -> list[str]:
    decoded = classification_input.Decoder().decode(record)
    label = int(decoded["image/class/label"])
    return [] if 0 <= label < len(built.labels) else [f"label {label} of {len(built.labels)} classes"]


def detection_decoder(built: Manifest) -> tf_example_decoder.TfExampleDecoder:
    """The official decoder for a built detection data set."""
    return tf_example_decoder.TfExampleDecoder(include_mask=built.has_masks)


def _detection(record: tf.Tensor, built: Manifest) -> list[str]:
    decoded = {name: value.numpy() for name, value in detection_decoder(built).decode(record).items()}
    boxes, classes, count = decoded["groundtruth_boxes"], decoded["groundtruth_classes"], len(decoded["groundtruth_classes"])
    checks = {
        f"{len(boxes)} boxes, {count} classes": len(boxes) == count,
        "a box leaves the image": bool(np.all((boxes >= 0) & (boxes <= 1))),
        "a box has no area": bool(np.all(boxes[:, :2] < boxes[:, 2:])),
        f"a class is outside 1 to {len(built.labels)}": bool(np.all((classes >= 1) & (classes <= len(built.labels)))),
        f"source_id {decoded['source_id']!r} is no number": decoded["source_id"].isdigit(),
        f"height and width say {decoded['height']}x{decoded['width']}, the image is {decoded['image'].shape}": decoded["image"].shape[:2] == (decoded["height"], decoded["width"]),
    }
    if built.has_masks:
        shape = decoded["groundtruth_instance_masks"].shape
        checks[f"masks have shape {shape}"] = count == 0 or shape == (count, *decoded["image"].shape[:2])
    return [problem for problem, fine in checks.items() if not fine]


def _segmentation(record: tf.Tensor, built: Manifest) -> list[str]:
    decoded = segmentation_input.Decoder().decode(record)
    mask = tf.io.decode_image(decoded["image/segmentation/class/encoded"], channels=1)[..., 0].numpy()
    image = tf.io.decode_image(decoded["image/encoded"], channels=3)
    problems = [] if mask.shape == tuple(image.shape[:2]) else [f"the mask is {mask.shape}, the image {image.shape}"]
    unknown = [int(value) for value in np.unique(mask) if value >= len(built.labels) and value != 255]
    return problems + ([f"classes {unknown} of {len(built.labels)}"] if unknown else [])


JUDGES: dict[str, Callable[[tf.Tensor, Manifest], list[str]]] = {"classification": _classification, "detection": _detection, "segmentation": _segmentation}


def parser(built: Manifest) -> Callable[[tf.Tensor], Any]:
    """Model Garden's decoder and parser, one after the other, for records of this data set."""
    size = [SIZE, SIZE]
    if built.task == "classification":
        decoder: Any = classification_input.Decoder()
        parse = classification_input.Parser(size, len(built.labels), decode_jpeg_only=set(built.formats) <= {"jpeg"}).parse_fn(is_training=False)
    elif built.task == "segmentation":
        decoder = segmentation_input.Decoder()
        parse = segmentation_input.Parser(size).parse_fn(is_training=False)
    else:
        decoder = detection_decoder(built)
        parse = retinanet_input.Parser(size, min_level=3, max_level=5, num_scales=1, aspect_ratios=[1.0], anchor_size=4.0).parse_fn(is_training=False)
    return lambda record: parse(decoder.decode(record))


def main() -> None:
    """Waits for a manifest on standard input, answers with the problems found."""
    asked = json.loads(sys.stdin.read())
    built = manifest.from_json(asked["manifest"], asked["directory"])
    print(json.dumps({"problems": check(built, asked["limit"])}))


if __name__ == "__main__":
    main()
