"""COCO instances: images, and a JSON file with boxes and, as polygons or run lengths, masks."""

import json
import math
import os
from collections.abc import Iterator
from typing import Any

from pipelines.config import UsageError
from pipelines.data import masks, sources
from pipelines.data.images import Image

TASKS = ("detection",)


def listing(request: sources.Request) -> sources.Listing:
    """Every image of the annotation files; classes in the order of the category ids, counted from 1 without gaps."""
    documents = {split: _read(file) for split, file in request.places["annotations"].items()}
    categories = {category["id"]: category["name"] for document in documents.values() for category in document["categories"]}
    numbers = {category: number for number, category in enumerate(sorted(categories), start=1)}
    labels = tuple(categories[category] for category in sorted(categories))
    has_masks = request.dataset.include_masks
    if has_masks is None:
        has_masks = any(item.get("segmentation") for document in documents.values() for item in document["annotations"])
    return sources.Listing(labels, has_masks, _items(request, documents, numbers, labels))


def _read(file: str) -> dict[str, Any]:
    with open(file, encoding="utf-8-sig") as text:
        try:
            document = json.load(text)
        except ValueError as error:
            raise UsageError(f"{file}: not JSON: {error}") from None
    for part in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(part), list):
            raise UsageError(f"{file}: no list {part!r}; expected COCO instances (images, annotations, categories)")
    return document


def _items(request: sources.Request, documents: dict[str, Any], numbers: dict[int, int], labels: tuple[str, ...]) -> Iterator[sources.Example | sources.Reject]:
    for given, document in documents.items():
        folder = request.places["images"].get(given) or request.places["images"][""]
        digests = request.digests["images"].get(given) or request.digests["images"][""]
        objects: dict[Any, list] = {}
        for annotation in document["annotations"]:
            objects.setdefault(annotation["image_id"], []).append(annotation)
        for image in document["images"]:
            key, name = str(image["id"]), image["file_name"]
            split = sources.split_of(given, key, request.dataset)
            if sources.inside(folder, name) is None:
                yield sources.Reject(split, name, key, "path_escapes", "the file name leaves dataset.images; correct it")
                continue
            found = objects.pop(image["id"], [])
            more = {"height": image.get("height"), "width": image.get("width"), "objects": [_object(item, numbers, labels) for item in sorted(found, key=_order)]}
            content = sources.digest(digests.get(name, "missing"), json.dumps(more, sort_keys=True))
            yield sources.Example(split, key, os.path.join(folder, name), name, content, more)


def _object(annotation: dict[str, Any], numbers: dict[int, int], labels: tuple[str, ...]) -> dict[str, Any]:
    label = numbers.get(annotation.get("category_id"), 0)
    return {**annotation, "label": label, "text": labels[label - 1] if label else ""}


def load(example: sources.Example, image: Image, request: sources.Request) -> dict[str, Any]:
    """Boxes clipped to the image, with masks where asked for; objects that cannot be used are listed with a reason."""
    stated = (example.more["height"], example.more["width"])
    if stated != (image.height, image.width):
        raise sources.Rejected("image_size", f"the annotation says {stated[1]}x{stated[0]}, the file is {image.width}x{image.height}")
    objects, rejects, clipped = [], [], 0
    for item in example.more["objects"]:
        try:
            objects.append(_checked(item, image, request))
            clipped += objects[-1].pop("clipped")
        except sources.Rejected as rejected:
            rejects.append((str(item.get("id")), rejected))
    return {"objects": objects, "rejects": rejects, "clipped": clipped}


def _checked(item: dict[str, Any], image: Image, request: sources.Request) -> dict[str, Any]:
    if not item["label"]:
        raise sources.Rejected("unknown_category", f"category {item.get('category_id')!r} is not in the list of categories")
    left, top, width, height = _numbers(item.get("bbox"))
    if width <= 0 or height <= 0:
        raise sources.Rejected("box_empty", f"box {item['bbox']} has no area")
    right, bottom = left + width, top + height
    box = (max(0.0, top), max(0.0, left), min(float(image.height), bottom), min(float(image.width), right))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise sources.Rejected("box_outside", f"box {item['bbox']} lies outside the image of {image.width}x{image.height}")
    area = item.get("area")
    found = {
        "box": (box[0] / image.height, box[1] / image.width, box[2] / image.height, box[3] / image.width),
        "label": item["label"],
        "text": item["text"],
        "is_crowd": int(bool(item.get("iscrowd", 0))),
        "area": area if isinstance(area, int | float) and math.isfinite(area) else (box[2] - box[0]) * (box[3] - box[1]),
        "clipped": box != (top, left, bottom, right),
    }
    if request.dataset.include_masks is not False and item.get("segmentation"):
        found["mask"] = masks.encode(masks.rasterise(item["segmentation"], image.height, image.width))
    return found


def _numbers(box: Any) -> tuple[float, float, float, float]:
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) and math.isfinite(value) for value in box):
        raise sources.Rejected("box_malformed", f"box {box!r} is not [x, y, width, height] in pixels")
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])


def _order(annotation: dict[str, Any]) -> tuple[int, str]:
    """By id: the order in the file must not reach the record."""
    number = annotation.get("id")
    return (number, "") if isinstance(number, int) else (0, json.dumps(annotation, sort_keys=True))
