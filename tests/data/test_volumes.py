"""Volumes as people bring them: grey pictures of slices, what is none, and what the official parser makes of the records."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data import embedded, reading
from pipelines.data.manifest import Manifest
from pipelines.system import tfrecord
from tests.data.test_store import examples

Build = Callable[..., Manifest]
SIDE, DEPTH = 8, 5


def volume(generator: np.random.Generator, deepest: int) -> np.ndarray:
    """Slices, rows and columns."""
    kind = np.uint8 if deepest < 256 else np.uint16
    return generator.integers(0, deepest, (DEPTH, SIDE, SIDE), dtype=kind, endpoint=True)


def save(file: Path, slices: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(slices.reshape(-1, slices.shape[-1])).save(file)


def arguments(root: Path) -> list[str]:
    return [
        "dataset=volume_folder",
        f"dataset.images={root / 'volumes'}",
        f"dataset.masks={root / 'masks'}",
        "dataset.labels=[background,bone,other]",
        "dataset.validation_fraction=0",
        "dataset.max_reject_fraction=1",
    ]


@pytest.mark.parametrize("deepest", [255, 65535])
def test_the_official_parser_reads_the_voxels_and_the_classes(deepest, build: Build, tmp_path):
    generator = np.random.default_rng(3)
    slices, classes = volume(generator, deepest), volume(generator, 2)
    classes[0, 0, 0] = 255
    save(tmp_path / "volumes" / "a.png", slices)
    save(tmp_path / "masks" / "a.png", classes)
    built = build(*arguments(tmp_path))
    assert built.task == "volume_segmentation" and not built.rejects
    (shard,) = built.splits["train"].shards
    with Path(built.directory, shard.file).open("rb") as file:
        (record,) = tfrecord.read(file)
    room = reading.load("volume_segmentation")
    voxels, where = (part.numpy() for part in room.parser(built)(record))
    assert voxels.shape == (SIDE, SIDE, DEPTH, 1) and where.shape == (SIDE, SIDE, DEPTH, 3)
    np.testing.assert_allclose(voxels[2, 3, 4, 0], slices[4, 2, 3] / deepest, rtol=1e-6)
    assert where[2, 3, 4].argmax() == classes[4, 2, 3]
    assert where[2, 3, 4].sum() == 1
    assert where[0, 0, 0].sum() == 0
    assert room.problems(record, built) == []
    assert room.as_decoded(record, built, "a").image.shape[2] == 3


def test_what_is_no_volume_is_rejected_with_what_to_do(build: Build, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    pictures = {
        "good": volume(generator, 255),
        "colour": np.zeros((DEPTH * SIDE, SIDE, 3), np.uint8),
        "uneven": np.zeros((DEPTH * SIDE + 1, SIDE), np.uint8),
    }
    for name, pixels in pictures.items():
        file = tmp_path / "volumes" / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        flat = pixels.reshape(-1, SIDE) if name == "good" else pixels
        Image.fromarray(flat).save(file)
        save(tmp_path / "masks" / f"{name}.png", np.zeros(flat.shape[:2], np.uint8))
    built = build(*arguments(tmp_path))
    assert built.splits["train"].examples == 1
    assert built.rejects == {"volume_not_grey": 1, "volume_uneven": 1}


def test_embedded_volumes_hold_a_digit_in_some_of_their_slices(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "VOLUMES", {"train": 6, "validation": 3})
    built = build("dataset=digit_volumes")
    assert {name: split.examples for name, split in built.splits.items()} == {
        "train": 6,
        "validation": 3,
    }
    for record in examples(built, "train"):
        where = np.frombuffer(record["volume/class/label"][0], np.float32).reshape(32, 32, 32, 2)
        assert 200 < where[..., 1].sum() < where[..., 0].sum()
        with_digit = where[..., 1].any(axis=(0, 1))
        assert 10 <= with_digit.sum() <= 20
