"""COCO files that contradict themselves or each other are refused, not merged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.manifest import Manifest
from pipelines.usage import UsageError
from tests.data.conftest import coco, coco_at, coco_panoptic

Build = Callable[..., Manifest]
CATS = [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}]


def two_files(folder: Path, theirs: list[dict[str, Any]]) -> list[str]:
    """Overrides for a training and a validation file, the second with categories of its own."""
    file, document = coco(folder / "images")
    second = folder / "second.json"
    second.write_text(json.dumps({**document, "categories": theirs}))
    return [
        "dataset=coco",
        f"dataset.images={folder}/images",
        f"dataset.annotations={{train:{file},validation:{second}}}",
        "dataset.max_reject_fraction=1",
    ]


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        (
            [{"id": 3, "name": "dog"}, {"id": 8, "name": "cat"}],
            "in {0}/images.json category 3 is 'cat', in {0}/second.json category 3 is 'dog'",
        ),
        (
            [{"id": 1, "name": "cat"}, {"id": 8, "name": "dog"}],
            "in {0}/images.json 'cat' is category 3, in {0}/second.json 'cat' is category 1",
        ),
    ],
)
def test_two_files_that_number_categories_differently_are_refused(
    build: Build, tmp_path: Path, theirs: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(UsageError) as refused:
        build(*two_files(tmp_path, theirs))
    assert says.format(tmp_path) in str(refused.value)


def test_a_file_with_some_of_the_categories_of_another_is_taken(
    build: Build, tmp_path: Path
) -> None:
    assert build(*two_files(tmp_path, CATS[:1])).labels == ("cat", "dog")


def test_two_panoptic_files_that_disagree_about_things_are_refused(
    build: Build, tmp_path: Path
) -> None:
    document = coco_panoptic(tmp_path)
    document["categories"][0]["isthing"] = 0
    (tmp_path / "second.json").write_text(json.dumps(document))
    files = (
        f"dataset.annotations={{train:{tmp_path}/panoptic.json,validation:{tmp_path}/second.json}}"
    )
    with pytest.raises(
        UsageError, match="panoptic.json 'cat' has isthing 1, in .*second.json 'cat' has isthing 0"
    ):
        build(
            "dataset=coco_panoptic",
            f"dataset.images={tmp_path}/images",
            f"dataset.masks={tmp_path}/masks",
            files,
        )


def spelled(document: dict[str, Any]) -> str:
    return json.dumps(document)


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "one id, two names": (
        lambda document: spelled(
            {**document, "categories": [*CATS, {"id": 3, "name": "ca\x1b[2Jt"}]}
        ),
        r"two categories have the id 3: 'cat' at byte \d+, 'ca\\x1b\[2Jt' at byte \d+",
    ),
    "a section twice": (
        lambda document: spelled(document)[:-1] + ', "annotations": []}',
        r"images.json: not JSON at byte \d+: annotations is there a second time",
    ),
    "text after the end": (
        lambda document: spelled(document) + "{}",
        "text after the end of the object",
    ),
    "cut and pasted": (
        lambda document: spelled(document) + "\n\n]",
        "text after the end of the object",
    ),
    "no list": (lambda document: spelled({**document, "annotations": None}), r"expected '\['"),
    "images alone": (
        lambda document: spelled({name: document[name] for name in ("images", "categories")}),
        r"images.json: no annotations; it lists 10 images and says nothing of them \(as COCO's image_info files do",
    ),
    "a number without end": (
        lambda document: spelled(document)[:-1] + f', "info": {"9" * 5000}}}',
        "number too long",
    ),
    "a name that is no text": (
        lambda document: spelled({**document, "categories": [*CATS, {"id": 9, "name": "\ud800"}]}),
        r"the name of category 9 is no text: '\\ud800'",
    ),
    "a category without id": (
        lambda document: spelled(
            {**document, "categories": [*CATS, {"id": True, "name": "x" * 5000}]}
        ),
        "category {'id': True, 'name': 'xxx.{20,80}… has no whole number as id",
    ),
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_a_file_that_contradicts_itself_is_refused(
    build: Build, tmp_path: Path, contradiction: str
) -> None:
    file, document = coco(tmp_path / "images")
    write, says = CONTRADICTIONS[contradiction]
    file.write_text(write(document))
    with pytest.raises(UsageError, match=says):
        build(*coco_at(file))


def test_images_without_any_object_are_examples_all_the_same(build: Build, tmp_path: Path) -> None:
    file, document = coco(tmp_path / "images")
    file.write_text(spelled({**document, "annotations": []}))
    built = build(*coco_at(file))
    assert built.counts["examples_written"] == 10 and not built.counts["objects_read"]
