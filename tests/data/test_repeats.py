"""Training pictures of a rare class come several times; those that a model is held against never do."""

from pathlib import Path

import pytest
from PIL import Image

from pipelines.config import Dataset
from pipelines.data import repeats
from pipelines.data.listing import Listing
from pipelines.usage import UsageError
from pipelines.weights.suitability import rare_class


@pytest.fixture
def rare(tmp_path: Path) -> list[str]:
    """Overrides that choose pictures of many cats and few dogs."""
    for split in ("train", "validation"):
        for label, count in (("cat", 12), ("dog", 2)):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                colour = (number * 20, 0, 200 if label == "dog" else 0)
                Image.new("RGB", (8, 8), colour).save(folder / f"{number}.png")
    places = f"{{train:{tmp_path / 'train'},validation:{tmp_path / 'validation'}}}"
    return ["dataset=image_folder", f"dataset.images={places}"]


def test_training_pictures_of_a_rare_class_come_as_often_as_is_said(build, rare) -> None:
    plain = build(*rare)
    repeated = build(*rare, "dataset.repeat={dog:3}")
    assert plain.classes["train"] == {"cat": 12, "dog": 2}
    assert repeated.classes["train"] == {"cat": 12, "dog": 6}
    assert repeated.splits["train"].examples == 18
    assert repeated.classes["validation"] == plain.classes["validation"]
    assert repeated.fingerprint != plain.fingerprint
    assert build(*rare, "dataset.repeat={dog:3}").splits == repeated.splits


def test_a_table_of_pictures_repeats_too(build, rare, tmp_path) -> None:
    rows = [f"train/dog/{number}.png,dog" for number in range(2)]
    rows += [f"train/cat/{number}.png,cat" for number in range(12)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label", *rows]))
    words = ["dataset=csv", f"dataset.images={tmp_path}", f"dataset.annotations={table}"]
    words += ["dataset.columns={path:path,label:label}", "dataset.validation_fraction=0.2"]
    plain = build(*words).classes["train"]
    assert build(*words, "dataset.repeat={cat:2}").classes["train"]["cat"] == 2 * plain["cat"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{dogs:3}", "no class 'dogs'; did you mean dog"),
        ("{dog:0}", "a whole number from 1 on"),
        ("{dog:1.5}", "a whole number"),
        ("3", "write dataset.repeat="),
    ],
)
def test_what_cannot_be_repeated_is_said(said, words, build, rare) -> None:
    with pytest.raises(UsageError, match=words):
        build(*rare, f"dataset.repeat={said}")


def test_boxes_are_not_repeated() -> None:
    dataset = Dataset(name="d", task="detection", source="coco", repeat={"cat": 2})
    with pytest.raises(UsageError, match="the source coco repeats nothing"):
        repeats.listed(Listing(("cat",), False, []), dataset)


def test_the_warning_of_a_rare_class_can_be_typed(build, rare) -> None:
    counts = build(*rare).classes["train"]
    said = str(rare_class({**counts, "cat": 32}, "classification"))
    word = said.rpartition("pictures, ")[2]
    assert word == "dataset.repeat={dog:4}"
    assert build(*rare, word).classes["train"]["dog"] == 8
