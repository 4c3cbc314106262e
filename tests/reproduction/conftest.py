"""Fixtures in exactly the layout of published data sets, a few real pixels in each."""

import functools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_images

COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # category ids that COCO leaves out of 1 to 90
SIZES = {"train": 12, "validation": 8}
LABEL_IDS = 34  # Cityscapes' own, of which 19 are trained
KINETICS_CLASSES = ("abseiling", "air drumming", "zumba")  # its first two and its last


@pytest.fixture(scope="session")
def layouts(tmp_path_factory) -> dict[str, Path]:
    """Roots by data set: COCO 2017 and Cityscapes as they unpack, ImageNet in class folders, VOC 2012 with the augmented
    list, Kinetics as the command on its page leaves it."""
    root = tmp_path_factory.mktemp("published")
    _coco(root / "coco")
    _imagenet(root / "imagenet")
    _voc(root / "VOC2012")
    _cityscapes(root / "cityscapes")
    _kinetics(root / "kinetics")
    return {
        "cityscapes": root / "cityscapes",
        "coco2017": root / "coco",
        "imagenet2012": root / "imagenet",
        "kinetics": root / "kinetics",
        "pascal_voc_2012": root / "VOC2012",
    }


@functools.cache
def _pixels() -> tuple[list[np.ndarray], np.ndarray]:
    """Photographs and digits, which take longer to load than to draw on."""
    return load_sample_images().images, load_digits().images


def _scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph's crop of 160x120 with a digit on it, and the digit's mask."""
    photographs, digits = _pixels()
    photograph, digit = photographs[number % 2], digits[number]
    scene, mask = (
        photograph[:120, number * 8 : number * 8 + 160].copy(),
        np.zeros((120, 160), np.uint8),
    )
    shape = (
        cv2.resize((digit * 15.9).astype(np.uint8), (56, 56), interpolation=cv2.INTER_CUBIC) > 110
    )
    mask[20:76, 30:86] = shape
    scene[mask > 0] = 255
    return scene, mask


def _coco(folder: Path) -> None:
    categories = [
        {"id": number, "name": f"category {number}", "supercategory": "thing"}
        for number in range(1, 91)
        if number not in COCO_GAPS
    ]
    (folder / "annotations").mkdir(parents=True)
    for split, name in (("train", "train2017"), ("validation", "val2017")):
        (folder / name).mkdir()
        images, annotations = [], []
        for number in range(SIZES[split]):
            scene, mask = _scene(number)
            file = f"{number + 1:012d}.jpg"
            cv2.imwrite(str(folder / name / file), scene)
            contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            x, y, width, height = cv2.boundingRect(mask)
            images.append(
                {"id": number + 1, "file_name": file, "height": 120, "width": 160, "license": 1}
            )
            annotations.append(
                {
                    "id": number + 1, "image_id": number + 1, "category_id": 90 - number % 3, "bbox": [x, y, width, height], "iscrowd": 0,
                    "area": int(mask.sum()), "segmentation": [line.flatten().tolist() for line in contours if len(line) > 2],
                }
            )  # fmt: skip
        document = {
            "info": {},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(document))


def _imagenet(folder: Path) -> None:
    for split, count in (("train", 1000), ("validation", SIZES["validation"])):
        for number in range(count):
            synset = folder / split / f"n{number:08d}"
            synset.mkdir(parents=True)
            cv2.imwrite(
                str(synset / f"ILSVRC2012_{split}_{number:08d}.JPEG"),
                _scene(number % 12)[0][:64, :64],
            )


def _voc(folder: Path) -> None:
    for name in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for split, name in (("train", "trainaug"), ("validation", "val")):
        stems = [
            f"2007_{offset:06d}"
            for offset in range(
                *((0, SIZES[split]) if split == "train" else (100, 100 + SIZES[split]))
            )
        ]
        for number, stem in enumerate(stems):
            scene, mask = _scene(number)
            border = cv2.dilate(mask, np.ones((3, 3), np.uint8)) - mask
            cv2.imwrite(str(folder / "JPEGImages" / f"{stem}.jpg"), scene)
            cv2.imwrite(
                str(folder / "SegmentationClassAug" / f"{stem}.png"),
                mask * (1 + number % 20) + border * 255,
            )
        (folder / "ImageSets/Segmentation" / f"{name}.txt").write_text("\n".join(stems) + "\n")


def _cityscapes(folder: Path) -> None:
    """Each picture has its label ids, its instances' ids, its colours and its polygons; those of the test split are void."""
    for split, city in (("train", "aachen"), ("val", "frankfurt"), ("test", "berlin")):
        images = folder / "leftImg8bit" / split / city
        labels = folder / "gtFine" / split / city
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(SIZES["validation"]):
            stem = f"{city}_{number:06d}_000019"
            scene, _ = _scene(number)
            cv2.imwrite(str(images / f"{stem}_leftImg8bit.png"), scene)
            columns = np.arange(160, dtype=np.uint8) % LABEL_IDS
            ids = np.tile(columns, (120, 1)) * (split != "test")
            cv2.imwrite(str(labels / f"{stem}_gtFine_labelIds.png"), ids)
            cv2.imwrite(
                str(labels / f"{stem}_gtFine_instanceIds.png"), ids.astype(np.uint16) * 1000
            )
            cv2.imwrite(str(labels / f"{stem}_gtFine_color.png"), scene)
            document = {"imgHeight": 120, "imgWidth": 160, "objects": []}
            (labels / f"{stem}_gtFine_polygons.json").write_text(json.dumps(document))


def _kinetics(folder: Path) -> None:
    """Clips by their film and its seconds, each a folder of frames in the folder of its class."""
    for split, count in (("train", 4), ("val", 2)):
        for number, name in enumerate(KINETICS_CLASSES * count):
            clip = folder / split / name / f"-0film{number:05d}_{number:06d}_{number + 10:06d}"
            clip.mkdir(parents=True)
            scene, _ = _scene(number)
            for frame in range(1, 12):
                cv2.imwrite(str(clip / f"{frame:05d}.jpg"), np.roll(scene, frame, axis=1))
