"""COCO panoptic: images, PNGs whose colours are segments, and a JSON file that says what each segment is.

For segmentation a pixel's class is the category of its segment, 255 where it has none; for
detection the segments of `thing` categories become boxes and masks.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.data import keys, lookup, masks
from pipelines.data.example import Example, Folder, Loaded, Reject, Rejected
from pipelines.data.images import Image
from pipelines.data.listing import Facts, Listing, Request, Tally
from pipelines.data.masks import IGNORED
from pipelines.data.sources import coco
from pipelines.data.sources.coco import Scan, Span
from pipelines.outside import quoted
from pipelines.usage import UsageError

FACTS = Facts(
    tasks=("segmentation", "detection"),
    required=("images", "annotations", "masks"),
    several=("images",),
    object_masks=True,
    numbered=True,
)
Segment = dict[str, Any]


def listing(request: Request) -> Listing:
    """Every image of the annotation files; classes in the order of the category ids.

    These are all categories, or for detection those of things.
    """
    scans = coco.scan_all(request, lookup.files_of(request, "annotations"))
    categories = coco.merged(request, scans)
    things = _things(categories, scans)
    detects = request.dataset.task == "detection"
    if detects:
        labels, numbers = _numbered_things(request, things)
    else:
        labels, numbers = _numbered_all(categories)
    stuff = sorted(set(categories) - set(things))
    has_masks = not detects or request.dataset.include_masks is not False
    named = {category: (number, categories[category]) for category, number in numbers.items()}
    tally = Tally(sum(scan.entries["images"] for scan in scans))
    if detects:
        tally.objects = _count_objects(scans, stuff)
    readers = [_Reader(request, scan, stuff, tally) for scan in scans]
    items = (item for reader in readers for item in reader.items())
    return Listing(
        labels,
        has_masks,
        items,
        {"masks": has_masks, "labels": named},
        tally,
    )


def _things(categories: Mapping[int, str], scans: Iterable[Scan]) -> dict[int, str]:
    """Names of the categories of things by their ids."""
    kinds: dict[int, Any] = {}
    for scan in scans:
        kinds |= scan.things
    for number, name in categories.items():
        if kinds[number] not in (0, 1):
            raise UsageError(
                f"dataset.annotations: category {quoted(name)} has no isthing of 0 or 1; "
                "expected COCO panoptic (instances: dataset=coco)"
            )
    return {number: name for number, name in categories.items() if kinds[number]}


def _numbered_things(
    request: Request, things: Mapping[int, str]
) -> tuple[tuple[str, ...], dict[int, int]]:
    if not things:
        raise UsageError(
            "dataset.annotations: no category has isthing 1, so there are no objects to detect; "
            "dataset.task=segmentation takes stuff"
        )
    return coco.numbered(request, things)


def _numbered_all(categories: Mapping[int, str]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names in the order of their labels, which start at 0, and the label of each category."""
    ids = sorted(categories)
    if len(ids) > IGNORED:
        says = f"{len(ids)} categories; a mask of 8 bits holds {IGNORED}"
        raise UsageError(f"dataset.annotations: {says}")
    labels = tuple(categories[number] for number in ids)
    return labels, {number: label for label, number in enumerate(ids)}


def _count_objects(scans: Iterable[Scan], stuff: Sequence[int]) -> int:
    """How many segments are to become objects."""
    segments: Counter[Any] = Counter()
    for scan in scans:
        segments.update(scan.segments)
    return sum(count for category, count in segments.items() if category not in stuff)


@dataclass
class _Reader:
    """Reads the examples of one annotation file, with their segments."""

    request: Request
    scan: Scan
    stuff: Sequence[int]
    tally: Tally

    def items(self) -> Iterator[Example | Reject]:
        folders = lookup.folders_of(
            self.request,
            "masks",
            self.scan.given,
        )
        for item in coco.items(self.request, self.scan, self._count, self._stray):
            yield item if isinstance(item, Reject) else self._with_segments(item, folders)

    def _with_segments(self, example: Example, folders: Sequence[Folder]) -> Example | Reject:
        annotations = self._annotations(example.own["spans"])
        rows = self._rows(annotations)
        try:
            segments, name = _segments(annotations)
            mask, sha256 = lookup.find(name, folders, "mask")
        except Rejected as rejected:
            return Reject(
                split=example.split,
                file=example.name,
                record=example.key,
                code=rejected.code,
                advice=rejected.advice,
                objects=len(rows),
            )
        return replace(
            example,
            content=keys.joint_digest(example.content, sha256),
            own={**example.own, "mask": mask, "segments": segments, "rows": rows},
            files={**example.files, mask: sha256},
        )

    def _annotations(self, spans: Sequence[Span]) -> list[Any]:
        file = self.request.places["annotations"][self.scan.given]
        sha256 = self.request.digests["annotations"][self.scan.given][""]
        return coco.annotations_at(file, sha256, spans)

    def _rows(self, annotations: Iterable[Any]) -> list[int]:
        """Which segments of an image are to become objects."""
        if self.request.dataset.task != "detection":
            return []
        segments: list[Any] = []
        for annotation in annotations:
            segments += _listed_segments(annotation)
        return [row for row, entry in enumerate(segments) if _category(entry) not in self.stuff]

    def _count(self, spans: Sequence[Span]) -> int:
        return len(self._rows(self._annotations(spans)))

    def _stray(self, reject: Reject, span: Span) -> Reject:
        # An annotation is all that is known of an image, not one object.
        self.tally.examples += 1
        return replace(
            reject,
            whole=True,
            objects=self._count([span]),
        )


def _listed_segments(annotation: Any) -> list[Any]:
    segments = annotation.get("segments_info") if isinstance(annotation, dict) else None
    return segments if isinstance(segments, list) else []


def _category(segment: Any) -> Any:
    return segment.get("category_id") if isinstance(segment, dict) else None


def _segments(annotations: Sequence[Any]) -> tuple[list[Segment], str]:
    """The segments of an image, and the name of its PNG.

    Raises:
        Rejected: it has no annotation, several, or one that is not as COCO has it.
    """
    if not annotations:
        raise Rejected("no_annotation", "add the image's annotation, or remove the image")
    if len(annotations) > 1:
        advice = "two annotations are for this image; remove one"
        raise Rejected("duplicate_annotation", advice)
    segments = annotations[0].get("segments_info")
    name = annotations[0].get("file_name")
    if not isinstance(name, str) or not _are_segments(segments):
        says = "an annotation has file_name and segments_info, and each segment an id"
        raise Rejected("annotation_malformed", f"{says}; correct or remove it")
    if len({segment["id"] for segment in segments}) < len(segments):
        advice = "give each segment of the image its own id"
        raise Rejected("duplicate_segment_id", advice)
    return segments, name


def _are_segments(segments: Any) -> bool:
    if not isinstance(segments, list):
        return False
    for segment in segments:
        if not isinstance(segment, dict) or not isinstance(segment.get("id"), int):
            return False
    return True


def objects(example: Example, request: Request) -> int:
    """How many segments of an image are to become objects."""
    return len(example.own["rows"])


def load(example: Example, image: Image, request: Request) -> Loaded:
    """The classes, or the objects, of one image."""
    coco.check_size(example, image)
    try:
        painted = masks.read_segments(lookup.read(example, example.own["mask"]))
    except OSError as error:
        says = f"the PNG cannot be read: {error.strerror or error}"
        raise Rejected("mask_missing", says) from None
    if painted.shape != (image.height, image.width):
        height, width = painted.shape
        says = f"the PNG is {width}x{height}, the image {image.width}x{image.height}"
        raise Rejected("mask_size", says)
    segments = {segment["id"]: segment for segment in example.own["segments"]}
    unknown = [int(number) for number in np.unique(painted) if number and number not in segments]
    if unknown:
        says = f"the PNG has segments that segments_info does not list: {unknown[:3]}"
        raise Rejected("unknown_segment", f"{says}; add them there, or paint them 0")
    if request.dataset.task == "detection":
        return _objects(example, painted, image, request)
    return _classes(segments, painted, request)


def _classes(
    segments: Mapping[int, Mapping[str, Any]], painted: np.ndarray, request: Request
) -> Loaded:
    numbers, inverse, counts = np.unique(
        painted,
        return_inverse=True,
        return_counts=True,
    )
    classes = np.full(len(numbers), IGNORED, np.uint8)
    # Where each segment is in the three; 0 is no segment.
    at = {int(number): row for row, number in enumerate(numbers) if number}
    pixels: dict[str, int] = {}
    for number, segment in segments.items():
        category = _category(segment)
        if not isinstance(category, int) or category not in request.shared["labels"]:
            says = f"category {quoted(category)} of segment {number}"
            advice = "is not in the list of categories; add it there"
            raise Rejected("unknown_category", f"{says} {advice}")
        if number not in at:
            says = f"segment {number} has no pixel in the PNG"
            raise Rejected("mask_empty", f"{says}; remove it from segments_info")
        label, name = request.shared["labels"][category]
        classes[at[number]] = label
        pixels[name] = pixels.get(name, 0) + int(counts[at[number]])
    mask = masks.encode_classes(classes[inverse].reshape(painted.shape))
    return Loaded({"mask": mask}, pixels=pixels)


def _objects(
    example: Example,
    painted: np.ndarray,
    image: Image,
    request: Request,
) -> Loaded:
    segments = [example.own["segments"][row] for row in example.own["rows"]]
    loaded = Loaded({"objects": []})
    for segment in sorted(segments, key=lambda segment: segment["id"]):
        try:
            item, clipped = coco.describe(segment, image, request)
            if request.shared["masks"]:
                pixels = (painted == segment["id"]) & (painted > 0)
                item["mask"] = masks.encode_pixels(pixels)
        except Rejected as rejected:
            loaded.rejects.append((str(segment["id"]), rejected))
            continue
        loaded.record["objects"].append(item)
        loaded.clipped += clipped
    return loaded
