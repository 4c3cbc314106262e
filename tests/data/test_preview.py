"""A look at the data: what the official decoder and parser return, drawn."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from PIL import Image

from pipelines.commands import preview as verb
from pipelines.config import compose
from pipelines.data import preview
from pipelines.data.manifest import Manifest
from pipelines.data.preview import Picture
from pipelines.usage import UsageError
from tests.data.conftest import coco, coco_at

Build = Callable[..., Manifest]


def test_a_sheet_shows_boxes_masks_and_classes(tmp_path: Path) -> None:
    grey = np.full((24, 32, 3), 128, np.uint8)
    mask = np.zeros((24, 32), np.uint8)
    mask[:12] = 1
    pictures = [
        Picture(grey, "plain"),
        Picture(grey, "boxes", [(2, 2, 20, 30)], [5]),
        Picture(grey, "masks", [(0, 0, 12, 32)], [0], [mask]),
        Picture(grey, "classes", classes=mask),
    ]
    assert preview.sheet(pictures, ["a", "b"], epath.Path(tmp_path / "sheet.png")) == 4
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    tiles = [
        pixels[:192, place * (preview.SIDE + 4) : place * (preview.SIDE + 4) + preview.SIDE]
        for place in range(4)
    ]
    assert (tiles[0] == 128).all() and all((tile != 128).any() for tile in tiles[1:])
    assert (tiles[3][150:] == 128).all()


def test_a_page_holds_the_manifests_figures_and_warnings(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    built = build(*coco_at(file))
    preview.page(built, "sheet.png", epath.Path(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert (
        "Classes in train" in text
        and "<td>dog</td>" in text
        and built.fingerprint in text
        and "src='sheet.png'" in text
    )


def test_a_page_shows_no_more_of_a_class_name_than_a_line_holds(
    build: Build, tmp_path: Path
) -> None:
    file, document = coco(tmp_path / "images")
    document["categories"][0]["name"] = "\x1b[2J" + "x" * 5000
    file.write_text(json.dumps(document))
    built = build(*coco_at(file))
    preview.page(built, "sheet.png", epath.Path(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text()
    assert "\\x1b[2Jxxx" in text and "x" * 100 not in text and "\x1b" not in text
    grey = np.full((24, 32, 3), 128, np.uint8)
    assert (
        preview.sheet(
            [Picture(grey, "a\nb" * 50, [(2, 2, 20, 30)], [0])],
            built.labels,
            epath.Path(tmp_path / "s.png"),
        )
        == 1
    )


def test_nothing_to_look_at_is_said() -> None:
    with pytest.raises(UsageError, match="no dataset given; add DATA=<name>"):
        verb.run(compose([]))


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["", "retinanet", "maskrcnn"])
def test_the_verb_draws_data_and_what_a_model_learns_from(tmp_path: Path, experiment: str) -> None:
    file, _ = coco(tmp_path / "images", 30)
    chosen = [f"experiment={experiment}"] if experiment else []
    given = [
        *chosen,
        *coco_at(file),
        "dataset.validate=full",
        f"data_dir={tmp_path}/data",
    ]
    small = (
        ["task.train_data.global_batch_size=4", "task.validation_data.global_batch_size=1"]
        if experiment
        else []
    )
    assert verb.run(compose([*given, *small])) == 0
    (sheet,) = (tmp_path / "data" / "previews").glob("*.png")
    assert (
        Image.open(sheet).size[0] == 6 * (preview.SIDE + 4) and sheet.with_suffix(".html").exists()
    )
    assert sheet.stem.endswith(experiment)
