"""COCO panoptic: images, PNGs whose colours are segments, and a JSON file that says what each segment is.

For segmentation a pixel's class is the category of its segment, 255 where it has none; for detection the segments of
`thing` categories become boxes and masks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.data import masks, sources
from pipelines.data.images import Image
from pipelines.data.masks import IGNORED
from pipelines.data.sources import (
    Example,
    Folder,
    Listing,
    Reject,
    Rejected,
    Request,
    Tally,
    coco,
)
from pipelines.outside import printable
from pipelines.usage import UsageError

TASKS = ("segmentation", "detection")


def listing(request: Request) -> Listing:
    """Every image of the annotation files; classes in the order of the category ids: all of them, or those of things."""
    scans = [coco.scan(given, request.places["annotations"][given], digest) for given, digest in sources.files_of(request, "annotations").items()]
    categories = coco.merged(request, scans)
    kinds = {number: kind for scan in scans for number, kind in scan.things.items()}
    for number, name in categories.items():
        if kinds[number] not in (0, 1):
            raise UsageError(f"dataset.annotations: category {printable(name)!r} has no isthing of 0 or 1; expected COCO panoptic (instances: dataset=coco)")
    things = {number: name for number, name in categories.items() if kinds[number]}
    stuff = sorted(set(categories) - set(things))
    if request.dataset.task == "detection":
        if not things:
            raise UsageError("dataset.annotations: no category has isthing 1, so there are no objects to detect; dataset.task=segmentation takes stuff")
        labels, numbers = coco.numbered(request, things)
        has_masks = request.dataset.include_masks is not False
    else:
        labels, numbers, has_masks = tuple(categories[number] for number in sorted(categories)), {number: place for place, number in enumerate(sorted(categories))}, True
        if len(labels) > IGNORED:
            raise UsageError(f"dataset.annotations: {len(labels)} categories; a mask of 8 bits holds {IGNORED}")
    shared = {"masks": has_masks, "labels": {category: (number, categories[category]) for category, number in numbers.items()}}
    tally = Tally(sum(scan.entries["images"] for scan in scans))
    if request.dataset.task == "detection":
        tally.objects = sum(count for scan in scans for category, count in scan.segments.items() if category not in stuff)
    items = (item for scan in scans for item in _items(request, scan, stuff, tally))
    return Listing(labels, has_masks, items, shared, tally)


def _items(request: Request, scan: coco.Scan, stuff: list[int], tally: Tally) -> Iterator[Example | Reject]:
    """Examples with their segments; `rows` numbers those of them that are to become objects."""
    file = request.places["annotations"][scan.given], request.digests["annotations"][scan.given][""]
    folders = sources.folders_of(request, "masks", scan.given)

    def things(places: list[list[int]]) -> list[int]:
        if request.dataset.task != "detection":
            return []
        segments = [segment for place in places for segment in _listed(coco.annotation(*file, *place))]
        return [row for row, segment in enumerate(segments) if _category(segment) not in stuff]

    def stray(reject: Reject, place: list[int]) -> Reject:
        # An annotation is all that is known of an image, not one object.
        tally.examples += 1
        return replace(reject, whole=True, objects=len(things([place])))

    for item in coco.items(request, scan, lambda places: len(things(places)), stray):
        if isinstance(item, Reject):
            yield item
            continue
        rows = things(item.more["rows"])
        try:
            segments, mask, content = _segments(file, item.more["rows"], folders)
        except Rejected as rejected:
            yield Reject(item.split, item.name, item.key, rejected.code, rejected.advice, objects=len(rows))
            continue
        more = {**item.more, "mask": mask, "segments": segments, "rows": rows}
        yield replace(item, content=sources.digest(item.content, content), more=more, files={**item.files, mask: content})


def _listed(annotation: Any) -> list[Any]:
    segments = annotation.get("segments_info") if isinstance(annotation, dict) else None
    return segments if isinstance(segments, list) else []


def objects(example: Example, request: Request) -> int:
    """How many segments of an image are to become objects."""
    return len(example.more["rows"])


def _category(segment: Any) -> Any:
    return segment.get("category_id") if isinstance(segment, dict) else None


def _segments(file: tuple[str, str], places: list[list[int]], folders: list[Folder]) -> tuple[list[dict[str, Any]], str, str]:
    """The segments of an image, the path of its PNG, and that one's digest."""
    if not places:
        raise Rejected("no_annotation", "add the image's annotation, or remove the image")
    if len(places) > 1:
        raise Rejected("duplicate_annotation", "two annotations are for this image; remove one")
    annotation = coco.annotation(*file, *places[0])
    segments, name = annotation.get("segments_info"), annotation.get("file_name")
    if not isinstance(name, str) or not isinstance(segments, list) or not all(isinstance(segment, dict) and isinstance(segment.get("id"), int) for segment in segments):
        raise Rejected("annotation_malformed", "an annotation has file_name and segments_info, and each segment an id; correct or remove it")
    if len({segment["id"] for segment in segments}) < len(segments):
        raise Rejected("duplicate_segment_id", "give each segment of the image an id of its own")
    return segments, *sources.find(name, folders, "mask")


def load(example: Example, image: Image, request: Request) -> dict[str, Any]:
    """The classes, or the objects, of one image."""
    coco.check_size(example, image)
    try:
        painted = masks.read_segments(sources.read(example, example.more["mask"]))
    except OSError as error:
        raise Rejected("mask_missing", f"the PNG cannot be read: {error.strerror or error}") from None
    if painted.shape != (image.height, image.width):
        raise Rejected("mask_size", f"the PNG is {painted.shape[1]}x{painted.shape[0]}, the image {image.width}x{image.height}")
    segments = {segment["id"]: segment for segment in example.more["segments"]}
    unknown = [int(number) for number in np.unique(painted) if number and number not in segments]
    if unknown:
        raise Rejected("unknown_segment", f"the PNG has segments that segments_info does not list: {unknown[:3]}; add them there, or paint them 0")
    return _objects(example, painted, image, request) if request.dataset.task == "detection" else _classes(segments, painted, request)


def _classes(segments: Mapping[int, Mapping[str, Any]], painted: np.ndarray, request: Request) -> dict[str, Any]:
    numbers, inverse, counts = np.unique(painted, return_inverse=True, return_counts=True)
    classes = np.full(len(numbers), IGNORED, np.uint8)
    places = {int(number): place for place, number in enumerate(numbers) if number}
    pixels: dict[str, int] = {}
    for number, segment in segments.items():
        category = _category(segment)
        if not isinstance(category, int) or category not in request.shared["labels"]:
            raise Rejected("unknown_category", f"category {printable(category)!r} of segment {number} is not in the list of categories; add it there")
        if number not in places:
            raise Rejected("mask_empty", f"segment {number} has no pixel in the PNG; remove it from segments_info")
        classes[places[number]], name = request.shared["labels"][category]
        pixels[name] = pixels.get(name, 0) + int(counts[places[number]])
    return {"mask": masks.encode_classes(classes[inverse].reshape(painted.shape)), "pixels": pixels}


def _objects(example: Example, painted: np.ndarray, image: Image, request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {"objects": [], "rejects": [], "clipped": 0}
    for segment in sorted((example.more["segments"][row] for row in example.more["rows"]), key=lambda segment: segment["id"]):
        try:
            item, clipped = coco.describe(segment, image, request)
            if request.shared["masks"]:
                item["mask"] = masks.encode_pixels((painted == segment["id"]) & (painted > 0))
            found["objects"].append(item)
            found["clipped"] += clipped
        except Rejected as rejected:
            found["rejects"].append((str(segment["id"]), rejected))
    return found
