"""What a new user does: a folder of photographs with a half-broken annotation file, one command, a trained detector."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

SIZE = 64
CLASSES = {7: "ball", 12: "box"}
SMALL = [
    f"task.model.input_size=[{SIZE},{SIZE},3]", "task.train_data.global_batch_size=8", "task.validation_data.global_batch_size=4",
    "trainer.train_steps=60", "trainer.steps_per_loop=20", "trainer.validation_interval=60", "trainer.checkpoint_interval=60",
    "trainer.optimizer_config.warmup.linear.warmup_steps=10",
]  # fmt: skip


def photographs(folder: Path, count: int = 120) -> dict[str, Any]:
    """Pictures with a blue disc in the upper half and a red square in the lower one, and their COCO instances."""
    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    document: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in CLASSES.items()],
    }
    for number in range(1, count + 1):
        pixels = random.randint(60, 120, (SIZE, SIZE, 3)).astype(np.uint8)
        document["images"].append(
            {"id": number, "file_name": f"IMG_{number:04d}.jpg", "width": SIZE, "height": SIZE}
        )
        for place, category in enumerate(CLASSES):
            side = random.randint(14, 28)
            left, top = (
                random.randint(1, SIZE - side),
                random.randint(1, SIZE // 2 - side) + place * SIZE // 2,
            )
            if place:
                cv2.rectangle(pixels, (left, top), (left + side, top + side), (20, 30, 240), -1)
            else:
                cv2.circle(
                    pixels, (left + side // 2, top + side // 2), side // 2, (240, 200, 20), -1
                )
            box = [left, top, side, side]
            document["annotations"].append(
                {
                    "id": 2 * number + place,
                    "image_id": number,
                    "category_id": category,
                    "bbox": box,
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
        cv2.imwrite(str(folder / f"IMG_{number:04d}.jpg"), pixels)
    return document


def break_half(folder: Path, document: dict[str, Any]) -> Counter[str]:
    """Damages images and entries; returns how often each reason is to be given."""
    images, annotations = document["images"], document["annotations"]
    (folder / images[2]["file_name"]).unlink()
    (folder / images[3]["file_name"]).unlink()
    cut = folder / images[4]["file_name"]
    cut.write_bytes(cut.read_bytes()[:-200])
    (folder / images[5]["file_name"]).write_bytes(b"")
    images[6]["width"] = 640
    images[7]["file_name"] = "../elsewhere.jpg"
    images.append(dict(images[10]))
    for place in (30, 32, 34):
        annotations[place]["category_id"] = 99
    annotations[40]["bbox"][2] = 0
    annotations[42]["bbox"] = None
    annotations[44]["bbox"][0] = -6  # clipped
    annotations[46]["id"] = annotations[47]["id"]
    annotations[48]["image_id"] = 5555
    broken_images = {
        "image_missing": 2,
        "image_truncated": 1,
        "image_empty": 1,
        "image_size": 1,
        "path_escapes": 1,
        "duplicate_image_id": 1,
    }
    return Counter(
        broken_images
        | {
            "unknown_category": 3,
            "box_empty": 1,
            "box_malformed": 1,
            "duplicate_annotation_id": 1,
            "unknown_image": 1,
        }
    )


@pytest.mark.slow
def test_photographs_with_a_half_broken_annotation_file_become_a_detector_and_a_list_of_what_was_wrong(
    trellis, tmp_path: Path
) -> None:
    document = photographs(tmp_path / "photos")
    expected = break_half(tmp_path / "photos", document)
    (tmp_path / "instances.json").write_text(json.dumps(document))
    places = [
        f"dataset.images={tmp_path}/photos",
        f"dataset.annotations={tmp_path}/instances.json",
        f"data_dir={tmp_path}/data",
        f"runs_dir={tmp_path}/runs",
    ]
    command = [
        "train",
        "experiment=retinanet",
        "dataset=coco",
        *places,
        f"run_dir={tmp_path}/run",
        *SMALL,
    ]

    refusal = trellis(*command, code=2)
    assert re.search(
        r"5\.8% of the examples \(7 of 121\) and 7\.9% of the objects \(19 of 240\) were rejected, dataset\.max_reject_fraction allows 1\.0%",
        refusal,
    )
    assert (
        "3 unknown_category, as IMG_0016.jpg record 32: category 99 is not in the list of categories"
        in refusal
    )
    (listed,) = (tmp_path / "data").glob("coco-*/rejects.jsonl")
    assert f"each with what to do: {listed}" in refusal
    option = re.search(r"add to the command: (dataset\.max_reject_fraction=\S+)", refusal)
    assert option

    printed = trellis(*command, option.group(1))
    assert (
        "1 boxes reached over the edge" in printed and f"each with what to do: {listed}" in printed
    )
    rejects = [json.loads(line) for line in listed.read_text().splitlines()]
    assert Counter(reject["code"] for reject in rejects) == expected
    assert all(reject["advice"] for reject in rejects)
    assert json.loads((listed.parent / "manifest.json").read_text())["counts"] == {
        "examples_read": 121, "examples_written": 114, "examples_rejected": 7,
        "objects_read": 240, "objects_written": 221, "objects_rejected": 7, "objects_of_rejected_examples": 12, "boxes_clipped": 1,
        "ballast_files": 0, "ids_hashed": 0,
    }  # fmt: skip
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (
        summary["status"] == "finished"
        and summary["headline"]["metric"] == "AP"
        and summary["headline"]["value"] > 0.2
    )
    assert list((tmp_path / "run" / "checkpoints" / "best").iterdir())
