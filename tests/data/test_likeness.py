"""Data that differ from ImageNet's photographs are said to: grey pictures, and classes of other names."""

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.data import likeness
from pipelines.data.manifest import Manifest, Shard, Split
from pipelines.system import tfrecord
from tasks import classification


def picture(blue=None, kind="PNG"):
    """A gradient; `blue` makes it a coloured one."""
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    channel = grey if blue is None else Image.new("L", (8, 8), blue)
    content = io.BytesIO()
    Image.merge("RGB", [grey, grey, channel]).save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_of_three_equal_channels_is_grey(kind):
    assert likeness.is_grey(picture(None, kind))
    assert not likeness.is_grey(picture(200, kind))
    assert not likeness.is_grey(b"no picture")


def test_classes_are_known_by_their_words():
    assert len(likeness.imagenet_names()) == 1000
    assert likeness.unknown_classes(["dog", "Tiger Shark", "sports-car"]) == []
    assert likeness.unknown_classes(["RBC", "daisy", "Platelets"]) == ["RBC", "Platelets"]


def built(folder, labels, contents):
    record = {"file": "a", "id": "a", "sha256": "", "format": "png", "height": 8, "width": 8}
    with (folder / "train-0.tfrecord").open("wb") as file:
        for content in contents:
            serialized = classification.encode({**record, "image": content, "label": 0, "text": ""})
            file.writelines(tfrecord.frame(serialized))
    split = Split(len(contents), (Shard("train-0.tfrecord", len(contents), 0, ""),))
    facts = {"dataset": "d", "fingerprint": "", "task": "classification", "version": 1}
    return Manifest(**facts, labels=labels, splits={"train": split}, directory=str(folder))


def test_what_the_weights_have_not_seen_is_said(tmp_path):
    unlike = built(tmp_path, ("RBC", "WBC"), [picture(), picture()])
    grey, classes = likeness.notes(unlike, classification.decode)
    assert "the first 2 pictures are grey" in grey and "(RBC, WBC)" in classes
    like = built(tmp_path, ("daisy", "WBC"), [picture(), picture(200)])
    assert likeness.notes(like, classification.decode) == []
