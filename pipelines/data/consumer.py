"""Records as Model Garden reads them: its decoder and parser, to validate a build and to look at it.    Run by `validation`."""

import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from official.core import task_factory
from official.vision.dataloaders import (
    classification_input,
    retinanet_input,
    segmentation_input,
    tf_example_decoder,
)
from official.vision.ops import box_ops, preprocess_ops

from pipelines.data import manifest
from pipelines.data.manifest import Manifest
from pipelines.data.preview import Picture

TOGETHER = 64  # records that are in memory at once
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
            dataset = tf.data.TFRecordDataset(
                f"{built.directory}/{shard.file}" if "/" not in shard.file else shard.file
            )
            for number, record in enumerate(dataset.take(limit or -1)):
                yield shard.file, number, record


def _classification(record: tf.Tensor, built: Manifest) -> list[str]:
    decoded = classification_input.Decoder().decode(record)
    label = int(decoded["image/class/label"])
    return (
        [] if 0 <= label < len(built.labels) else [f"label {label} of {len(built.labels)} classes"]
    )


def detection_decoder(built: Manifest) -> tf_example_decoder.TfExampleDecoder:
    """The official decoder for a built detection data set."""
    return tf_example_decoder.TfExampleDecoder(include_mask=built.has_masks)


def _detection(record: tf.Tensor, built: Manifest) -> list[str]:
    decoded = {
        name: value.numpy() for name, value in detection_decoder(built).decode(record).items()
    }
    boxes, classes, count = (
        decoded["groundtruth_boxes"],
        decoded["groundtruth_classes"],
        len(decoded["groundtruth_classes"]),
    )
    checks = {
        f"{len(boxes)} boxes, {count} classes": len(boxes) == count,
        "a box leaves the image": bool(np.all((boxes >= 0) & (boxes <= 1))),
        "a box has no area": bool(np.all(boxes[:, :2] < boxes[:, 2:])),
        f"a class is outside 1 to {len(built.labels)}": bool(
            np.all((classes >= 1) & (classes <= len(built.labels)))
        ),
        f"source_id {decoded['source_id']!r} is no number": decoded["source_id"].isdigit(),
        f"height and width say {decoded['height']}x{decoded['width']}, the image is {decoded['image'].shape}": decoded[
            "image"
        ].shape[:2]
        == (decoded["height"], decoded["width"]),
    }
    if built.has_masks:
        shape = decoded["groundtruth_instance_masks"].shape
        checks[f"masks have shape {shape}"] = count == 0 or shape == (
            count,
            *decoded["image"].shape[:2],
        )
    return [problem for problem, fine in checks.items() if not fine]


def _segmentation(record: tf.Tensor, built: Manifest) -> list[str]:
    decoded = segmentation_input.Decoder().decode(record)
    mask = tf.io.decode_image(decoded["image/segmentation/class/encoded"], channels=1)[
        ..., 0
    ].numpy()
    image = tf.io.decode_image(decoded["image/encoded"], channels=3)
    problems = (
        []
        if mask.shape == tuple(image.shape[:2])
        else [f"the mask is {mask.shape}, the image {image.shape}"]
    )
    unknown = [
        int(value) for value in np.unique(mask) if value >= len(built.labels) and value != 255
    ]
    return problems + ([f"classes {unknown} of {len(built.labels)}"] if unknown else [])


JUDGES: dict[str, Callable[[tf.Tensor, Manifest], list[str]]] = {
    "classification": _classification,
    "detection": _detection,
    "segmentation": _segmentation,
}


def parser(built: Manifest) -> Callable[[tf.Tensor], Any]:
    """Model Garden's decoder and parser, one after the other, for records of this data set."""
    size = [SIZE, SIZE]
    if built.task == "classification":
        decoder: Any = classification_input.Decoder()
        parse = classification_input.Parser(
            size, len(built.labels), decode_jpeg_only=set(built.formats) <= {"jpeg"}
        ).parse_fn(is_training=False)
    elif built.task == "segmentation":
        decoder = segmentation_input.Decoder()
        parse = segmentation_input.Parser(size).parse_fn(is_training=False)
    else:
        decoder = detection_decoder(built)
        parse = retinanet_input.Parser(
            size, min_level=3, max_level=5, num_scales=1, aspect_ratios=[1.0], anchor_size=4.0
        ).parse_fn(is_training=False)
    return lambda record: parse(decoder.decode(record))


def as_decoded(built: Manifest, count: int) -> Iterator[Picture]:
    """The first records of every shard in turn, as the official decoder returns them."""
    each = -(-count // sum(len(split.shards) for split in built.splits.values()))
    for file, number, record in itertools.islice(records(built, each), count):
        yield DECODED[built.task](record, built, f"{file.split('-of-')[0]} #{number}")


def _decoded_class(record: tf.Tensor, built: Manifest, caption: str) -> Picture:
    decoded = classification_input.Decoder().decode(record)
    return Picture(
        _image(decoded["image/encoded"]),
        f"{built.labels[int(decoded['image/class/label'])]}   {caption}",
    )


def _decoded_objects(record: tf.Tensor, built: Manifest, caption: str) -> Picture:
    decoded = {
        name: value.numpy() for name, value in detection_decoder(built).decode(record).items()
    }
    height, width = decoded["image"].shape[:2]
    boxes = decoded["groundtruth_boxes"] * [height, width, height, width]
    masks = decoded["groundtruth_instance_masks"] if built.has_masks else ()
    return Picture(
        decoded["image"],
        caption,
        boxes,
        [int(label) - 1 for label in decoded["groundtruth_classes"]],
        masks,
    )


def _decoded_classes(record: tf.Tensor, built: Manifest, caption: str) -> Picture:
    decoded = segmentation_input.Decoder().decode(record)
    classes = tf.io.decode_image(decoded["image/segmentation/class/encoded"], channels=1)[
        ..., 0
    ].numpy()
    return Picture(_image(decoded["image/encoded"]), caption, classes=classes)


def _image(encoded: tf.Tensor) -> np.ndarray:
    return tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()


DECODED: dict[str, Callable[[tf.Tensor, Manifest, str], Picture]] = {
    "classification": _decoded_class,
    "detection": _decoded_objects,
    "segmentation": _decoded_classes,
}


def as_trained(params: Any, built: Manifest, count: int) -> Iterator[Picture]:
    """Training batches as the experiment's own task gives them to its model: augmented, resized, its targets decoded."""
    dataset = task_factory.get_task(params.task).build_inputs(params.task.train_data)
    pictures = (
        picture
        for images, labels in dataset
        for picture in _pictures(images.numpy(), labels, built)
    )
    yield from itertools.islice(pictures, count)


def _pictures(images: np.ndarray, labels: Any, built: Manifest) -> Iterator[Picture]:
    for number, pixels in enumerate(images):
        shown = (
            pixels.astype(np.float32) * preprocess_ops.STDDEV_NORM + preprocess_ops.MEAN_NORM
        ) * 255
        image = np.clip(shown, 0, 255).astype(np.uint8)
        if built.task == "classification":
            label = labels[number].numpy()
            yield Picture(image, built.labels[int(label.argmax() if label.ndim else label)])
        elif built.task == "segmentation":
            classes = labels["masks"][number, ..., 0].numpy().astype(np.int32)
            yield Picture(
                image, "", classes=np.where((classes < 0) | (classes > 255), 255, classes)
            )
        else:
            boxes, classes = _targets(labels, number)
            yield Picture(
                image,
                f"{len(boxes)} objects to learn",
                boxes,
                [int(label) - 1 for label in classes],
            )


def _targets(labels: Any, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and classes that an image's targets stand for."""
    if "gt_boxes" in labels:
        real = labels["gt_classes"][number].numpy() > 0
        return labels["gt_boxes"][number].numpy()[real], labels["gt_classes"][number].numpy()[real]
    found: dict[tuple[int, ...], int] = {}
    for level, targets in labels["cls_targets"].items():
        classes = tf.reshape(targets[number], [-1]).numpy()
        anchors = tf.reshape(labels["anchor_boxes"][level][number], [-1, 4])
        boxes = box_ops.decode_boxes(
            tf.reshape(labels["box_targets"][level][number], [-1, 4]), anchors
        ).numpy()
        # Many anchors learn one box.
        found |= {
            tuple(round(float(value)) for value in boxes[place]): int(classes[place])
            for place in np.flatnonzero(classes > 0)
        }
    return np.array(list(found), np.float32).reshape(-1, 4), np.array(
        list(found.values()), np.int64
    )


def undecodable(shard: str) -> list[tuple[int, str, str, str]]:
    """(record, file, SHA-256 of the image, reason) of every image in a shard that the official decoders' operation refuses."""
    records = enumerate(tf.data.TFRecordDataset(shard).as_numpy_iterator())
    found = []
    with ThreadPoolExecutor() as pool:  # TensorFlow decodes outside Python's lock.
        while some := list(itertools.islice(records, TOGETHER)):
            found += [refused for refused in pool.map(_refused, some) if refused]
    return found


def _refused(numbered: tuple[int, bytes]) -> tuple[int, str, str, str] | None:
    number, record = numbered
    features = tf.train.Example.FromString(record).features.feature
    content = features["image/encoded"].bytes_list.value[0]
    sizes = [tuple(features[f"image/{side}"].int64_list.value) for side in ("height", "width")]
    try:
        decoded = tf.io.decode_image(content, channels=3, expand_animations=False)
    except tf.errors.OpError as error:
        reason = _words(error)
    else:
        # Other tools' records of a class may come without the sizes.
        if all(
            size in ((), (0,), (found,))
            for size, found in zip(sizes, decoded.shape[:2], strict=True)
        ):
            return None
        reason = f"it decodes to {decoded.shape[1]}x{decoded.shape[0]} pixels, which its header does not say"
    name = b"".join(features["image/filename"].bytes_list.value[:1]).decode("utf-8", "replace")
    return number, name, hashlib.sha256(content).hexdigest(), reason


def _words(error: tf.errors.OpError) -> str:
    """TensorFlow's message without the name of the operation around it."""
    text = str(error.message).splitlines()[0]
    return text.rpartition("}} ")[2].partition(" [Op:")[0]


def main() -> None:
    """Answers requests, one a line, until there are no more."""
    for line in sys.stdin:
        asked = json.loads(line)
        if "decode" in asked:
            answer: dict[str, Any] = {"undecodable": undecodable(asked["decode"])}
        else:
            built = manifest.from_json(asked["check"], asked["directory"])
            answer = {"problems": check(built, asked["limit"])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
