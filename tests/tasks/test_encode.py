"""What the tasks encode is what Model Garden's decoders read."""

import hashlib
import io
import os

import pytest
from PIL import Image

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
import tensorflow as tf
from official.vision.dataloaders import (
    classification_input,
    segmentation_input,
    tf_example_decoder,
    video_input,
)

import tasks
from pipelines.data import reading
from pipelines.data.manifest import Manifest
from tasks import _wire
from tests import golden


def png(mode: str, size: tuple[int, int] = (32, 24), colour: int = 1) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


HEAD = {
    "key": "7",
    "file": "seven.png",
    "id": 7,
    "image": png("RGB"),
    "sha256": "00",
    "format": "png",
    "height": 24,
    "width": 32,
}


def test_every_task_names_a_version_a_metric_and_its_first_label() -> None:
    for name in tasks.names():
        task = tasks.load(name)
        assert (
            task.VERSION >= 1
            and task.METRIC in ("accuracy", "AP", "mean_iou", "val_generalized_dice")
            and task.FIRST_LABEL in (0, 1)
        )


def test_an_unknown_task_names_the_nearest_or_all() -> None:
    everyone = "no task 'poses'; there are: classification, detection, segmentation, video_classification, volume_segmentation$"
    with pytest.raises(ValueError, match=everyone):
        tasks.load("poses")
    with pytest.raises(
        ValueError, match=r"no task 'detecton'; did you mean detection, segmentation\?$"
    ):
        tasks.load("detecton")


def test_classification_survives_the_official_decoder() -> None:
    decoded = classification_input.Decoder().decode(
        tasks.load("classification").encode({**HEAD, "label": 3, "text": "three"})
    )
    assert int(decoded["image/class/label"]) == 3
    assert decoded["image/encoded"].numpy() == HEAD["image"]


def test_detection_with_masks_survives_the_official_decoder() -> None:
    item = {
        "box": (0.25, 0.5, 0.75, 1.0),
        "label": 2,
        "text": "b",
        "area": 100.5,
        "is_crowd": 1,
        "mask": png("L"),
    }
    decoded = tf_example_decoder.TfExampleDecoder(include_mask=True).decode(
        tasks.load("detection").encode({**HEAD, "objects": [item, item]})
    )
    assert decoded["source_id"].numpy() == b"7"
    assert decoded["groundtruth_boxes"].numpy().tolist() == [[0.25, 0.5, 0.75, 1.0]] * 2
    assert decoded["groundtruth_classes"].numpy().tolist() == [2, 2]
    assert decoded["groundtruth_is_crowd"].numpy().tolist() == [True, True]
    assert decoded["groundtruth_area"].numpy().tolist() == [100.5, 100.5]
    assert decoded["groundtruth_instance_masks"].shape == (2, 24, 32)
    assert decoded["groundtruth_instance_masks"].numpy().min() == 1
    assert decoded["image"].shape == (24, 32, 3)


def test_an_image_without_objects_survives_the_official_decoder() -> None:
    decoded = tf_example_decoder.TfExampleDecoder(include_mask=True).decode(
        tasks.load("detection").encode({**HEAD, "objects": []})
    )
    assert decoded["groundtruth_boxes"].shape == (0, 4)
    assert decoded["groundtruth_instance_masks"].shape == (0, 24, 32)


def test_segmentation_survives_the_official_decoder() -> None:
    decoded = segmentation_input.Decoder().decode(
        tasks.load("segmentation").encode({**HEAD, "mask": png("L", colour=9)})
    )
    assert int(tf.io.decode_png(decoded["image/segmentation/class/encoded"]).numpy().max()) == 9
    assert int(decoded["image/height"]) == 24


CLIP = {**HEAD, "frames": [png("RGB"), png("RGB", colour=9)], "label": 3, "text": "three"}


def test_a_clip_survives_the_official_decoder() -> None:
    encoded = tasks.load("video_classification").encode(CLIP)
    decoded = video_input.Decoder().decode(encoded)
    assert decoded["image/encoded"].numpy().tolist() == CLIP["frames"]
    assert decoded["clip/label/index"].numpy().tolist() == [3]
    example = tf.train.SequenceExample.FromString(encoded)
    assert example.SerializeToString(deterministic=True) == encoded


def test_a_clip_comes_through_the_official_parser_and_what_is_wrong_with_it_is_told() -> None:
    task = tasks.load("video_classification")
    room = reading.load("video_classification")
    built = Manifest("d", "f", "video_classification", 1, ("a", "b", "c", "d"), {})
    record = tf.constant(task.encode(CLIP))
    features, label = room.parser(built)(record)
    assert features["image"].shape == (9, 64, 64, 3)
    assert label.numpy().tolist() == [0, 0, 0, 1]
    assert room.problems(record, built) == []
    picture = room.as_decoded(record, built, "x")
    assert picture.caption == "d   x" and picture.image.shape == (25, 66, 3)
    other = tf.constant(task.encode({**CLIP, "label": 4}))
    assert room.problems(other, built) == ["label 4 of 4 classes"]


def test_a_record_of_a_clip_without_frames_or_with_two_labels_is_named() -> None:
    task = tasks.load("video_classification")
    with pytest.raises(ValueError, match="no list of frames image/encoded"):
        task.decode(_wire.serialize_sequence({"clip/label/index": [1]}, {}))
    two = _wire.serialize_sequence({"clip/label/index": [1, 2]}, {"image/encoded": [b"x"]})
    with pytest.raises(ValueError, match="clip/label/index has 2 values"):
        task.decode(two)
    with pytest.raises(ValueError, match=r"not a tf\.train\.SequenceExample"):
        task.decode(b"\xff" * 9)


def test_the_wire_format_is_tensorflows_own() -> None:
    features = {"b": [b"\x00\xff"], "i": [1, -(2**62)], "f": [0.1, 2.0]}
    serialized = _wire.serialize(features)
    example = tf.train.Example.FromString(serialized)
    assert example.SerializeToString(deterministic=True) == serialized
    assert _wire.parse(serialized)["i"] == features["i"]
    with pytest.raises(ValueError, match="not a tf.train.Example"):
        _wire.parse(b"\xff" * 9)


def test_each_tasks_records_have_the_bytes_that_are_on_record() -> None:
    """Other bytes need another VERSION: shards of both would be taken for equal."""
    head = {**HEAD, "image": b"image", "sha256": "04ab"}
    item = {
        "box": (0.25, 0.5, 0.75, 1.0),
        "label": 2,
        "text": "b",
        "area": 100.5,
        "is_crowd": 1,
        "mask": b"mask",
    }
    records = {
        "classification": {"label": 3, "text": "three"},
        "detection": {"objects": [item, item]},
        "segmentation": {"mask": b"mask"},
        "video_classification": {"frames": [b"image", b"next"], "label": 3, "text": "three"},
        "volume_segmentation": {
            "mask": b"mask",
            "depth": 2,
            "voxels": b"voxels",
            "where": b"where",
        },
    }
    lines = []
    for name in tasks.names():
        task = tasks.load(name)
        lines.append(
            f"{name} {task.VERSION} | {hashlib.sha256(task.encode({**head, **records[name]})).hexdigest()}\n"
        )
    assert golden.changes("records.txt", "".join(lines)) == ""


def test_inputs_count_the_background_of_detection_only() -> None:
    files = {"train": "t", "validation": "v"}
    assert tasks.load("detection").inputs(files, ["a", "b"], ["jpeg"])["model"]["num_classes"] == 3
    assert (
        tasks.load("segmentation").inputs(files, ["a", "b"], ["jpeg"])["model"]["num_classes"] == 2
    )
    override = tasks.load("classification").inputs(files, ["a", "b"], ["png"])
    assert override["train_data"] == {"input_path": "t", "decode_jpeg_only": False}
    assert override["model"]["num_classes"] == 2
