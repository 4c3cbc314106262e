"""The photographs that the data benchmark builds, in COCO's layout; written by a process of its own."""

import argparse
import io
import json
import math
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks import HEIGHT, OBJECTS, WIDTH

CATEGORIES = 80
OVERHANGING = (
    50  # every so many objects one leaves the image by a pixel: the official tool drops it
)


def corpus(folder: Path, images: int, *, plain: bool = False) -> tuple[Path, Path]:
    """Photographs of 640x480 with seven polygons each, in COCO's layout; the same bytes every time. Plain ones are small and grey."""
    random = np.random.RandomState(0)
    (folder / "images").mkdir(parents=True)
    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    pictures = (
        [_encoded(np.full((HEIGHT, WIDTH, 3), 128))]
        if plain
        else [_photograph(random, photographs) for _ in range(min(images, 500))]
    )
    with (folder / "annotations.json").open(
        "w"
    ) as file:  # As a stream: the document may be larger than the memory.
        file.write(
            '{"categories": '
            + json.dumps(
                [{"id": number, "name": f"thing {number}"} for number in range(1, CATEGORIES + 1)]
            )
            + ', "images": ['
        )
        for number in range(1, images + 1):
            name = f"{number:012d}.jpg"
            # A comment makes every file's bytes its own.
            comment = f"{number:08d}".encode()
            picture = pictures[number % len(pictures)]
            (folder / "images" / name).write_bytes(
                picture[:2] + b"\xff\xfe\x00\x0a" + comment + picture[2:]
            )
            file.write(
                (number > 1) * ", "
                + json.dumps({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
            )
        file.write('], "annotations": [')
        for place in range(images * OBJECTS):
            thing = _thing(random, overhanging=(place + 1) % OVERHANGING == 0)
            file.write(
                (place > 0) * ", "
                + json.dumps({"id": place + 1, "image_id": place // OBJECTS + 1, **thing})
            )
        file.write("]}")
    return folder / "images", folder / "annotations.json"


def _photograph(random: np.random.RandomState, photographs: list[Image.Image]) -> bytes:
    source = photographs[random.randint(len(photographs))]
    left, top = random.randint(source.width // 2), random.randint(source.height // 2)
    crop = source.crop((left, top, left + source.width // 2, top + source.height // 2)).resize(
        (WIDTH, HEIGHT)
    )
    return _encoded(np.asarray(crop, np.int16) + random.randint(-12, 13, (HEIGHT, WIDTH, 3)))


def _encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _thing(random: np.random.RandomState, *, overhanging: bool) -> dict:
    radius = float(np.clip(random.lognormal(3.5, 0.7), 6, 200))
    x, y = (
        random.uniform(radius + 1, WIDTH - radius - 1),
        random.uniform(radius + 1, HEIGHT - radius - 1),
    )
    angles = np.arange(random.randint(12, 48)) * 1.0
    angles *= 2 * math.pi / len(angles)
    reach = radius * random.uniform(0.6, 1.0, len(angles))
    points = np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1).round(2)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    box = [
        float(left),
        float(top),
        float(WIDTH - left + 1) if overhanging else float(round(right - left, 2)),
        float(round(bottom - top, 2)),
    ]
    area = float(round(math.pi * radius * radius * 0.6, 2))
    return {
        "category_id": int(random.randint(1, CATEGORIES + 1)),
        "bbox": box,
        "area": area,
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
