"""What predictions leave behind: read back with the libraries that their readers use."""

import csv
import json

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from pipelines.data import preview
from pipelines.shipping import findings, results
from pipelines.shipping.results import Result

LABELS = ("cat", "dog")


def test_objects_are_coco_results_with_masks_that_coco_decodes(tmp_path):
    mask = np.zeros((1, 10, 20), np.uint8)
    mask[0, 2:5, 3:9] = 1
    box = np.array([[2, 3, 5, 9]], np.float32)
    result = Result(boxes=box, scores=np.array([0.75]), classes=np.array([1]), masks=mask)
    kept = findings.Objects(tmp_path, LABELS, first_label=1)
    kept.add("empty.jpg", Result(), (4, 4))
    kept.add("a/b.jpg", result, (10, 20))
    (found,) = json.loads(kept.close().read_text())
    listed = json.loads((tmp_path / "images.json").read_text())
    assert found["image_id"] == 2 and listed["images"][1]["file_name"] == "a/b.jpg"
    assert found["bbox"] == [3, 2, 6, 3] and found["score"] == 0.75
    category = {entry["id"]: entry["name"] for entry in listed["categories"]}
    assert category[found["category_id"]] == "dog"
    assert np.array_equal(rle.decode(found["segmentation"]), mask[0])


def test_unsure_boxes_are_kept_in_the_list_and_left_out_of_a_drawing():
    result = Result(
        boxes=np.zeros((2, 4), np.float32), scores=np.array([0.9, 0.1]), classes=np.array([0, 1])
    )
    assert len(result.above(0.3).boxes) == 1 and len(result.boxes) == 2


def test_probabilities_are_a_table_with_a_column_for_every_class(tmp_path):
    kept = findings.Probabilities(tmp_path, LABELS)
    kept.add("a,b.jpg", Result(probabilities=np.array([0.25, 0.75])))
    (row,) = csv.DictReader(kept.close().open())
    assert row == {
        "picture": "a,b.jpg",
        "class": "dog",
        "probability": "0.750000",
        "cat": "0.250000",
        "dog": "0.750000",
    }


def test_the_values_of_a_label_picture_are_the_classes_under_a_palette(tmp_path):
    pixels = np.array([[0, 1], [2, 1]], np.uint8)
    findings.write_classes(pixels, preview.colour, tmp_path / "a.png")
    picture = Image.open(tmp_path / "a.png")
    assert picture.mode == "P" and np.array_equal(np.asarray(picture), pixels)
    assert picture.convert("RGB").getpixel((1, 0)) == preview.colour(1)


def test_a_name_from_a_folder_leads_nowhere_else():
    for name in ("../../a b/c.jpg", "/etc/x", "..", "a/b.jpg"):
        safe = findings.safe_name(name)
        assert "/" not in safe and not safe.startswith("."), safe
    assert findings.safe_name("a/b.jpg") != findings.safe_name("a_b.jpg")


def test_a_mask_at_the_edge_fills_its_whole_box_and_its_box_ends_with_the_picture():
    mask = np.zeros((1, 28, 28), np.float32)
    mask[:, :, :14] = 1  # its left half
    outputs = {
        "num_detections": np.array(1),
        "detection_boxes": np.array([[0, 10, 10, 30]], np.float32),
        "detection_scores": np.array([0.9]),
        "detection_classes": np.array([1]),
        "detection_masks": mask,
    }
    upright = np.array([[10, 20], [10, 20], [1, 1], [0, 0]], np.float32)
    found = results.of_objects(outputs, upright, (10, 20))
    assert found.boxes.tolist() == [[0, 10, 10, 20]]
    # The half that the mask covers is all of the box that the picture shows.
    assert found.masks[0, 1:9, 11:19].all() and not found.masks[0, :, :9].any()
