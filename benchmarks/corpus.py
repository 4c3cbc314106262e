"""The photographs that the data benchmark builds, in COCO's layout; written by a separate process."""

import argparse
import io
import json
import math
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks import HEIGHT, OBJECTS, WIDTH

CATEGORIES = 80
OVERHANGING = (
    50  # every so many objects one leaves the image by a pixel: the official tool drops it
)
PICTURES = 500  # different ones
COMMENT = b"\xff\xfe\x00\x0a"  # marks a JPEG comment of eight bytes


def corpus(folder: Path, images: int, *, plain: bool = False) -> tuple[Path, Path]:
    """Photographs of 640x480 with seven polygons each, in COCO's layout; the same bytes every time. Plain ones are small and grey."""
    random = np.random.RandomState(0)
    (folder / "images").mkdir(parents=True)
    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    if plain:
        pictures = [_encoded(np.full((HEIGHT, WIDTH, 3), 128))]
    else:
        pictures = [_photograph(random, photographs) for _ in range(min(images, PICTURES))]
    # As a stream: the document may be larger than the memory.
    with (folder / "annotations.json").open("w") as file:
        file.write('{"categories": ')
        categories = [_category(number) for number in range(1, CATEGORIES + 1)]
        file.write(json.dumps(categories))
        file.write(', "images": [')
        for number in range(1, images + 1):
            name = f"{number:012d}.jpg"
            picture = pictures[number % len(pictures)]
            (folder / "images" / name).write_bytes(_own(picture, number))
            described = {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            _write_item(file, described, first=number == 1)
        file.write('], "annotations": [')
        for number in range(1, images * OBJECTS + 1):
            thing = _thing(random, overhanging=number % OVERHANGING == 0)
            image = (number - 1) // OBJECTS + 1
            _write_item(
                file,
                {"id": number, "image_id": image, **thing},
                first=number == 1,
            )
        file.write("]}")
    return folder / "images", folder / "annotations.json"


def _category(number: int) -> dict[str, Any]:
    return {"id": number, "name": f"thing {number}"}


def _own(picture: bytes, number: int) -> bytes:
    """The picture with a comment that makes every file's bytes its own."""
    comment = f"{number:08d}".encode()
    return picture[:2] + COMMENT + comment + picture[2:]


def _write_item(file: TextIO, item: dict[str, Any], *, first: bool) -> None:
    if not first:
        file.write(", ")
    file.write(json.dumps(item))


def _photograph(random: np.random.RandomState, photographs: list[Image.Image]) -> bytes:
    source = photographs[random.randint(len(photographs))]
    width = source.width // 2
    height = source.height // 2
    left = random.randint(width)
    top = random.randint(height)
    box = (left, top, left + width, top + height)
    crop = source.crop(box).resize((WIDTH, HEIGHT))
    pixels = np.asarray(crop, np.int16)
    noise = random.randint(-12, 13, pixels.shape)
    return _encoded(pixels + noise)


def _encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


def _thing(random: np.random.RandomState, *, overhanging: bool) -> dict:
    radius = float(np.clip(random.lognormal(3.5, 0.7), 6, 200))
    x = random.uniform(radius + 1, WIDTH - radius - 1)
    y = random.uniform(radius + 1, HEIGHT - radius - 1)
    angles = np.arange(random.randint(12, 48)) * 1.0
    angles *= 2 * math.pi / len(angles)
    reach = radius * random.uniform(0.6, 1.0, len(angles))
    across = x + reach * np.cos(angles)
    down = y + reach * np.sin(angles)
    points = np.stack([across, down], axis=1).round(2)
    left, top = points.min(axis=0)
    right, bottom = points.max(axis=0)
    width = float(round(right - left, 2))
    if overhanging:
        width = float(WIDTH - left + 1)
    box = [
        float(left),
        float(top),
        width,
        float(round(bottom - top, 2)),
    ]
    area = math.pi * radius * radius * 0.6
    return {
        "category_id": int(random.randint(1, CATEGORIES + 1)),
        "bbox": box,
        "area": float(round(area, 2)),
        "iscrowd": 0,
        "segmentation": [points.ravel().tolist()],
    }


def main() -> None:
    """Writes into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--plain", action="store_true", help="small grey photographs")
    asked = parser.parse_args()
    corpus(asked.folder, asked.images, plain=asked.plain)


if __name__ == "__main__":
    main()
