"""The embedded data: real digits, built by the sources of a user's own data."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data import embedded
from pipelines.data.manifest import Manifest

Build = Callable[..., Manifest]


def tree(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_one_seed_gives_the_same_bytes_and_another_gives_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        embedded.generate("digits", tmp_path / name, seed)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") != tree(tmp_path / "c")


def test_the_environment_is_the_same_after_data_were_made(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pipelines import config
from pipelines.data import store
before = dict(os.environ)
dataset = config.compose(["dataset=digits"]).dataset
store._generate({str(tmp_path)!r}, dataset)
assert "sklearn" in sys.modules
print({{name for name in os.environ if os.environ[name] != before.get(name)}})
"""
    environment = {name: value for name, value in os.environ.items() if "KMP" not in name}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.endswith("set()\n")


def test_training_and_validation_share_no_digit() -> None:
    digits = embedded._digits(np.random.RandomState(0))
    seen: dict[str, set[bytes]] = {}
    for split, (images, _) in digits.items():
        seen[split] = {image.tobytes() for image in images}
    assert len(digits["train"][0]) == 1437 and len(digits["validation"][0]) == 360
    assert not seen["train"] & seen["validation"]
    assert np.bincount(digits["validation"][1]).min() >= 30


def test_scenes_have_visible_disjoint_digits_on_disjoint_photographs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedded, "SCENES", {"train": 20, "validation": 20})
    for _, _, scene in embedded._scenes(np.random.RandomState(0)):
        assert scene.image.shape == (128, 128, 3) and 1 <= len(scene.classes) <= 6
        assert sum(mask.sum() for mask in scene.masks) == np.any(scene.masks, axis=0).sum()
        assert min(mask.sum() for mask in scene.masks) >= 40


def test_digits_build_as_a_folder_of_images(build: Build) -> None:
    built = build("dataset=digits")
    assert built.labels == tuple("0123456789") and built.formats == ("jpeg",)
    assert {name: split.examples for name, split in built.splits.items()} == {
        "train": 1437,
        "validation": 360,
    }


def test_scenes_build_as_coco_and_as_masks(
    build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedded, "SCENES", {"train": 30, "validation": 10})
    scenes, masks = build("dataset=digit_scenes"), build("dataset=digit_masks")
    assert (
        scenes.has_masks and scenes.task == "detection" and scenes.counts["objects_rejected"] == 0
    )
    assert (
        masks.labels[0] == "background" and len(masks.labels) == 11 and masks.task == "segmentation"
    )
    folder = tmp_path / "data" / "embedded"
    assert np.array_equal(
        np.asarray(Image.open(next(folder.glob("digit_scenes-*/train/train_00003.jpg")))),
        np.asarray(Image.open(next(folder.glob("digit_masks-*/images/train/train_00003.jpg")))),
    )
