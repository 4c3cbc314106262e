"""A source is one file: it states what it needs, lists, loads, and nothing else knows of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

import tasks
from pipelines import config
from pipelines.config import Dataset
from pipelines.data import locations, sources
from pipelines.data.manifest import Manifest
from pipelines.usage import UsageError
from tests.data.test_sources import picture
from tests.data.test_store import examples

Build = Callable[..., Manifest]
FOLDER = Path(__file__).parent / "new_source"
SETTINGS = ["dataset=image_folder", "dataset.source=first_word", "dataset.name=animals"]


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight images, the file of the source put among the others."""
    for number in range(4):
        picture(tmp_path / "images" / f"cat_{number}.png", colour=number)
        picture(tmp_path / "images" / f"dog_{number}.png", colour=10 + number)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(FOLDER)])
    return tmp_path / "images"


def test_a_file_is_a_source_by_its_name(build: Build, images: Path) -> None:
    picture(images / "cow_0.png")
    (images / "dog_9.png").symlink_to("nowhere")
    (images / "README.md").write_text("beside")
    built = build(
        *SETTINGS,
        f"dataset.images={images}",
        "dataset.labels=[cat,dog]",
        "dataset.validation_fraction=0",
        "dataset.max_reject_fraction=0.5",
        "runner=direct",
    )
    assert built.labels == ("cat", "dog")
    assert built.classes == {"train": {"cat": 4, "dog": 4}}
    assert built.rejects == {"link_broken": 1, "unknown_class": 1}
    assert built.counts["ballast_files"] == 1
    labels = [example["image/class/label"][0] for example in examples(built, "train")]
    assert sorted(labels) == [0] * 4 + [1] * 4


def test_what_it_needs_is_asked_for_and_what_it_cannot_is_refused(
    build: Build, images: Path
) -> None:
    with pytest.raises(UsageError, match="dataset animals needs dataset.labels=<path>"):
        build(*SETTINGS, f"dataset.images={images}")
    given = [*SETTINGS, f"dataset.images={images}", "dataset.labels=[cat,dog]", "runner=direct"]
    with pytest.raises(UsageError, match="first_word gives classification, not detection"):
        build(*given, "dataset.task=detection")


def test_an_unknown_source_is_told_which_there_are() -> None:
    with pytest.raises(UsageError, match="no source 'cocoo'; there are: coco, coco_panoptic, csv"):
        locations.locate("", Dataset(name="x", task="detection", source="cocoo"))


@pytest.mark.parametrize("name", sources.names())
def test_the_facts_of_a_source_are_of_things_that_there_are(name: str) -> None:
    facts = sources.facts(name)
    settings = {field.name for field in dataclasses.fields(Dataset)}
    assert {*facts.required, *facts.optional} <= settings
    assert {*facts.several, *facts.optional} <= set(locations.FIELDS)
    assert facts.tasks and all(tasks.load(task) for task in facts.tasks)


@pytest.mark.parametrize("name", config.options("dataset"))
def test_a_data_set_gives_its_source_only_what_that_reads(name: str) -> None:
    dataset = config.compose([f"dataset={name}"]).dataset
    assert dataset is not None
    facts = sources.facts(dataset.source)
    assert dataset.task in facts.tasks
    given = {field for field in locations.FIELDS if getattr(dataset, field) is not None}
    assert given <= {*facts.required, *facts.optional}
