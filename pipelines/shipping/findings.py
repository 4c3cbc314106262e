"""What was found in many pictures, kept as each task's world keeps it: COCO JSON, CSV, label PNGs with a palette."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from pipelines.shipping.results import Result
from pipelines.system import durable

Colour = Callable[[int], tuple[int, int, int]]


def safe_name(name: str) -> str:
    """A picture's path inside its folder as the beginning of one file's name."""
    return re.sub(r"[^\w.-]+", "_", name.replace("/", "__")).lstrip(".") or "picture"


class Probabilities:
    """`classes.csv`: one picture a row, its surest class and the probability of every class."""

    def __init__(self, folder: Path, labels: Sequence[str]) -> None:
        self._file = folder / "classes.csv"
        self._labels = labels
        self._rows: list[list[Any]] = []

    def add(self, name: str, result: Result) -> None:
        """Takes the probabilities of one picture."""
        assert result.probabilities is not None
        surest = int(np.argmax(result.probabilities))
        rounded = [f"{value:.6f}" for value in result.probabilities]
        self._rows.append(
            [
                name,
                self._labels[surest],
                rounded[surest],
                *rounded,
            ]
        )

    def close(self) -> Path:
        """Writes the file."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["picture", "class", "probability", *self._labels])
        rows.writerows(self._rows)
        durable.write_whole(self._file, text.getvalue())
        return self._file


class Objects:
    """`results.json`: the list that COCO's tools read, and `images.json`: which file has which `image_id`."""

    def __init__(
        self,
        folder: Path,
        labels: Sequence[str],
        first_label: int,
    ) -> None:
        self._folder = folder
        self._labels = labels
        self._first = first_label
        self._images: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def add(self, name: str, result: Result, size: tuple[int, int]) -> None:
        """Takes the objects of one picture, the unsure ones too: COCO's figure needs them."""
        number = len(self._images) + 1
        height, width = size
        self._images.append(
            {
                "id": number,
                "file_name": name,
                "height": height,
                "width": width,
            }
        )
        for index, (top, left, bottom, right) in enumerate(result.boxes.tolist()):
            sides = [left, top, right - left, bottom - top]
            entry = {
                "image_id": number,
                "category_id": int(result.classes[index]) + self._first,
                "bbox": [round(side, 3) for side in sides],
                "score": round(float(result.scores[index]), 6),
            }
            if result.masks is not None:
                entry["segmentation"] = run_lengths(result.masks[index])
            self._found.append(entry)

    def close(self) -> Path:
        """Writes the files."""
        categories = []
        for number, label in enumerate(self._labels, start=self._first):
            categories.append({"id": number, "name": label})
        listed = {
            "images": self._images,
            "categories": categories,
        }
        durable.write_whole(
            self._folder / "images.json",
            json.dumps(listed) + "\n",
        )
        file = self._folder / "results.json"
        durable.write_whole(file, json.dumps(self._found) + "\n")
        return file


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask in COCO's compressed run lengths, fit for JSON."""
    encoded = rle.encode(np.asfortranarray(mask))
    return {
        "size": list(encoded["size"]),
        "counts": encoded["counts"].decode(),
    }


def write_classes(pixels: np.ndarray, colour: Colour, file: Path) -> None:
    """Writes the class of each pixel as a PNG whose palette shows it: its values are the classes."""
    picture = Image.fromarray(pixels).convert("P")
    palette: list[int] = []
    for label in range(256):
        palette += colour(label) if label else (0, 0, 0)
    picture.putpalette(palette)
    picture.save(file, "PNG")
