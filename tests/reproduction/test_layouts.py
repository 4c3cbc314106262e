"""Published data sets as they unpack: read by their names alone, with the classes that published models number."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.commands import data as command
from pipelines.data import manifest
from pipelines.data.manifest import Manifest
from tests.data.test_store import examples
from tests.data.test_videos import records
from tests.reproduction.conftest import KINETICS_CLASSES, LABEL_IDS, SIZES

CLASS = "image/segmentation/class/encoded"
IGNORED = 255


@pytest.fixture
def built(layouts, tmp_path):
    """Builds a data set as `make data DATA=<name> ARGS=dataset.root=<folder>` does."""

    def run(name: str, *overrides: str) -> Manifest:
        places = [f"dataset.root={layouts[name]}", f"data_dir={tmp_path}"]
        quick = "dataset.validate=none"  # TensorFlow's import would be most of every test.
        assert command.main([f"dataset={name}", *places, quick, *overrides]) == 0
        (folder,) = tmp_path.glob(f"{name}-*")
        manifest_of = manifest.load(str(folder))
        assert not manifest_of.rejects
        return manifest_of

    return run


def values(masks: list[dict]) -> list[int]:
    """Every value that a pixel of these masks has."""
    found: set[int] = set()
    for record in masks:
        found.update(np.unique(Image.open(io.BytesIO(record[CLASS][0]))).tolist())
    return sorted(found)


def test_coco_keeps_the_ids_of_its_categories(built):
    data = built("coco2017")
    assert len(data.labels) == 90  # and the background: 91 classes
    records_of = examples(data, "validation")
    assert {record["image/source_id"][0] for record in records_of} == {
        str(number).encode() for number in range(1, SIZES["validation"] + 1)
    }
    ids = {number for record in records_of for number in record["image/object/class/label"]}
    assert ids == {88, 89, 90}
    assert all(record["image/object/mask"] for record in records_of)


@pytest.mark.parametrize(("background", "first"), [(True, 1), (False, 0)])
def test_imagenet_has_an_empty_class_in_front_unless_that_is_switched_off(background, first, built):
    data = built("imagenet2012", f"dataset.background={background}")
    assert len(data.labels) == 1000 + background
    assert data.labels[first] == "n00000000"
    labels = {record["image/class/label"][0] for record in examples(data, "validation")}
    assert labels == {first + number for number in range(SIZES["validation"])}


def test_voc_takes_the_augmented_list_and_its_borders_are_ignored(built):
    data = built("pascal_voc_2012")
    assert {name: split.examples for name, split in data.splits.items()} == SIZES
    assert len(data.labels) == 21
    assert values(examples(data, "train")) == [*range(SIZES["train"] + 1), IGNORED]


def test_cityscapes_has_its_classes_of_training_and_all_else_is_ignored(built, layouts):
    data = built("cityscapes")
    assert {name: split.examples for name, split in data.splits.items()} == {
        "train": SIZES["validation"],
        "validation": SIZES["validation"],
    }
    assert len(data.labels) == 19
    record = examples(data, "train")[0]
    classes = np.asarray(Image.open(io.BytesIO(record[CLASS][0])))[0, :LABEL_IDS]
    trained = {label: int(number) for label, number in enumerate(classes) if number != IGNORED}
    # cityscapesScripts, helpers/labels.py: road, sidewalk, …, train, motorcycle, bicycle.
    assert list(trained.values()) == list(range(19))
    assert {7: 0, 8: 1, 11: 2, 17: 5, 23: 10, 26: 13, 31: 16, 33: 18}.items() <= trained.items()


def test_kinetics_numbers_its_classes_in_the_order_of_their_names(built):
    data = built("kinetics")
    assert data.labels == KINETICS_CLASSES
    assert {name: split.examples for name, split in data.splits.items()} == {
        "train": 12,
        "validation": 6,
    }
    found = records(data)
    assert {len(record["frames"]) for record in found.values()} == {11}
    by_name = {Path(name).parts[-2]: record["label"] for name, record in found.items()}
    assert by_name == {name: number for number, name in enumerate(KINETICS_CLASSES)}
