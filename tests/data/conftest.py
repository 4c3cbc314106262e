"""Small sources in the formats that people bring."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.registry import _registry
from PIL import Image

import tasks
from pipelines import config
from pipelines.data import store
from pipelines.data.manifest import Manifest
from tests.data import bucket


def coco(
    folder: Path, images: int = 10, *, shuffled: int | None = None
) -> tuple[Path, dict[str, Any]]:
    """Ten 32-pixel photographs' worth of COCO: a polygon, run lengths and a crowd in each image."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(0)
    document: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
    }
    for number in range(1, images + 1):
        Image.fromarray(noise.randint(0, 255, (24, 32, 3), np.uint8)).save(
            folder / f"{number:03d}.jpg"
        )
        document["images"].append(
            {"id": number, "file_name": f"{number:03d}.jpg", "height": 24, "width": 32}
        )
        shapes = [
            ([[4, 4, 20, 4, 20, 16, 4, 16]], 0),
            ({"size": [24, 32], "counts": [0, 48, 720]}, 0),
            ({"size": [24, 32], "counts": [24, 24, 720]}, 1),
        ]
        boxes = ([4, 4, 16, 12], [0, 0, 2, 24], [1, 0, 1, 24])
        for place, ((segmentation, crowd), box) in enumerate(zip(shapes, boxes, strict=True)):
            document["annotations"].append(
                {
                    "id": 10 * number + place,
                    "image_id": number,
                    "category_id": 3 if place else 8,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": crowd,
                    "segmentation": segmentation,
                }
            )
    if shuffled is not None:
        for part in ("images", "annotations", "categories"):
            random.Random(shuffled).shuffle(document[part])
    return save(folder, document), document


def save(folder: Path, document: dict[str, Any]) -> Path:
    """Writes an annotation file beside the image folder."""
    file = folder.parent / f"{folder.name}.json"
    file.write_text(json.dumps(document))
    return file


def coco_at(file: Path) -> list[str]:
    """The overrides of an annotation file that `coco` or `save` has written, and of its images."""
    return ["dataset=coco", f"dataset.images={file.with_suffix('')}", f"dataset.annotations={file}"]


def coco_panoptic(folder: Path, images: int = 10) -> dict[str, Any]:
    """Photographs of 32x24 whose PNGs show sky on top, below it a cat of id 70000 and a crowd of cats, and two rows of nothing."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    noise = np.random.RandomState(0)
    categories = [
        {"id": 2, "name": "cat", "isthing": 1},
        {"id": 5, "name": "sky", "isthing": 0},
        {"id": 9, "name": "dog", "isthing": 1},
    ]
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    for number in range(1, images + 1):
        Image.fromarray(noise.randint(0, 255, (24, 32, 3), np.uint8)).save(
            folder / "images" / f"{number}.jpg"
        )
        segments = np.zeros((24, 32), np.uint32)
        segments[:10], segments[10:22, :8], segments[10:22, 8:] = 300, 70000, 5
        Image.fromarray(
            np.stack([segments & 255, segments >> 8 & 255, segments >> 16], axis=-1).astype(
                np.uint8
            )
        ).save(folder / "masks" / f"{number}.png")
        document["images"].append(
            {"id": number, "file_name": f"{number}.jpg", "height": 24, "width": 32}
        )
        shapes = [
            (300, 5, [0, 0, 32, 10], 0),
            (70000, 2, [0, 10, 8, 12], 0),
            (5, 2, [8, 10, 24, 12], 1),
        ]
        described = [
            {
                "id": identity,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": crowd,
            }
            for identity, category, box, crowd in shapes
        ]
        document["annotations"].append(
            {"image_id": number, "file_name": f"{number}.png", "segments_info": described}
        )
    (folder / "panoptic.json").write_text(json.dumps(document))
    return document


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Manifest]:
    """Builds a data set the way the verb does."""

    def run(*overrides: str, data_dir: Path = tmp_path / "data") -> Manifest:
        cfg = config.compose([*overrides, f"data_dir={data_dir}"])
        assert cfg.dataset is not None
        if not any("validate" in override for override in overrides):
            cfg.dataset.validate = "none"  # TensorFlow's import would be most of every test
        return store.obtain(cfg, tasks.load(cfg.dataset.task))

    return run


@pytest.fixture
def cloud() -> Iterator[bucket.Bucket]:
    """An empty store behind gs:// and s3://, which are not installed afterwards."""
    yield bucket.install()
    for scheme in bucket.SCHEMES:
        _registry.pop(scheme)  # Registration has no way back.
