"""COCO instances: images, and a JSON file with boxes and, as polygons or run lengths, masks.

The file is scanned once, in constant memory but for a few numbers per annotation; workers read an image's annotations
from their places in it.
"""

import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.data import files, masks, sources, stream
from pipelines.data.images import Image
from pipelines.data.sources import (
    Example,
    Listing,
    Reject,
    Rejected,
    Request,
    Tally,
)
from pipelines.outside import printable
from pipelines.usage import UsageError

TASKS = ("detection",)
SECTIONS = ("images", "annotations", "categories")


@dataclass
class Scan:
    """One annotation file: its images and categories, and where each annotation lies."""

    given: str  # the split the file is for, or ALL
    file: str = ""
    categories: dict[int, str] = field(default_factory=dict)
    things: dict[int, Any] = field(default_factory=dict)  # panoptic: whether a category is of things or of stuff
    images: list[dict[str, Any]] = field(default_factory=list)
    numbers: dict[Any, int] = field(default_factory=dict)  # of image ids, in the order they turn up
    image: array = field(default_factory=lambda: array("q"))  # the columns of a table of annotations
    start: array = field(default_factory=lambda: array("q"))
    length: array = field(default_factory=lambda: array("q"))
    id: array = field(default_factory=lambda: array("q"))
    digest: array = field(default_factory=lambda: array("Q"))
    has_masks: bool = False
    is_panoptic: bool = False
    malformed: list[tuple[Reject, list[int]]] = field(default_factory=list)  # each with its (first byte, length)
    entries: Counter[str] = field(default_factory=Counter)  # elements met, by section
    segments: Counter[Any] = field(default_factory=Counter)  # panoptic: segments met, by category


def listing(request: Request) -> Listing:
    """Every image of the annotation files; classes in the order of the category ids."""
    digests = sources.files_of(request, "annotations")
    scans = [scan(given, request.places["annotations"][given], digest) for given, digest in digests.items()]
    categories = merged(request, scans)
    if any(scan.is_panoptic for scan in scans):
        raise UsageError(f"{', '.join(request.places['annotations'].values())}: COCO panoptic; it needs dataset=coco_panoptic dataset.masks=<folder of its PNGs>")
    labels, numbers = numbered(request, categories)
    has_masks = request.dataset.include_masks
    if has_masks is None:
        has_masks = any(scan.has_masks for scan in scans)
    shared = {"masks": has_masks, "digests": digests, "labels": {category: (number, labels[number - 1]) for category, number in numbers.items()}}
    entries = sum((scan.entries for scan in scans), Counter())
    tally = Tally(entries["images"], entries["annotations"])
    return Listing(labels, has_masks, (item for scan in scans for item in items(request, scan)), shared, tally)


def merged(request: Request, scans: Iterable[Scan]) -> dict[int, str]:
    """Names of the categories of all annotation files, by their ids.

    Raises:
        UsageError: there are none, or two files number them differently.
    """
    categories: dict[int, str] = {}
    read: list[Scan] = []
    for scan in scans:
        for other in read:
            _check_alike(other, scan)
        categories |= scan.categories
        read.append(scan)
    if not categories:
        raise UsageError(f"{', '.join(request.places['annotations'].values())}: no categories; expected COCO")
    return categories


def _check_alike(one: Scan, other: Scan) -> None:
    """Refuses two files in which an id means two things, or a name has other ids."""
    for number in sorted(set(one.categories) & set(other.categories)):
        names = one.categories[number], other.categories[number]
        if names[0] != names[1]:
            raise _numbered_apart(one, other, [f"category {number} is {printable(name)!r}" for name in names])
        kinds = one.things.get(number), other.things.get(number)
        if kinds[0] != kinds[1]:
            raise _numbered_apart(one, other, [f"{printable(names[0])!r} has isthing {kind!r}" for kind in kinds])
    ours, theirs = _ids_by_name(one), _ids_by_name(other)
    for name in sorted(set(ours) & set(theirs)):
        if not (ours[name] <= theirs[name] or theirs[name] <= ours[name]):
            numbers = [" and ".join(map(str, sorted(ids))) for ids in (ours[name], theirs[name])]
            raise _numbered_apart(one, other, [f"{printable(name)!r} is category {number}" for number in numbers])


def _ids_by_name(scan: Scan) -> dict[str, set[int]]:
    ids: dict[str, set[int]] = {}
    for number, name in scan.categories.items():
        ids.setdefault(name, set()).add(number)
    return ids


def _numbered_apart(one: Scan, other: Scan, says: list[str]) -> UsageError:
    return UsageError(
        f"dataset.annotations: two files number their categories differently: in {one.file} {says[0]}, "
        f"in {other.file} {says[1]}; give both files one list of categories"
    )


def numbered(request: Request, categories: Mapping[int, str]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names in the order of their labels, which start at 1, and the label of each category id."""
    if not request.dataset.keep_category_ids:
        return tuple(categories[number] for number in sorted(categories)), {number: place for place, number in enumerate(sorted(categories), start=1)}
    if min(categories) < 1 or max(categories) > 10_000:
        raise UsageError(f"dataset.keep_category_ids: category ids go from {min(categories)} to {max(categories)}; 0 is the background")
    return tuple(categories.get(number, f"(no category {number})") for number in range(1, max(categories) + 1)), {number: number for number in categories}


def scan(given: str, file: str, digest: str) -> Scan:
    """Reads an annotation file once.

    Raises:
        UsageError: it is no JSON, or not laid out as COCO's.
    """
    scan, met, starts = Scan(given, file), set[str](), dict[int, int]()
    with os.fdopen(os.dup(files.kept(file, digest).fileno()), "rb") as content:
        content.seek(0)
        for section, start, text, value in stream.elements(content, file, SECTIONS, met):
            scan.entries[section] += 1
            if section == "categories":
                _add_category(scan, start, value, starts)
            elif not isinstance(value, dict):
                scan.malformed.append((_malformed(given, section, start, value), [start, len(text)]))
            elif section == "annotations":
                _add_annotation(scan, start, text, value)
            else:
                _add_image(scan, start, text, value)
    for section in ("images", "categories"):
        if section not in met:
            raise UsageError(f"{file}: no {section}; expected COCO (images, annotations, categories)")
    if "annotations" not in met:
        raise UsageError(
            f"{file}: no annotations; it lists {len(scan.images)} images and says nothing of them (as COCO's image_info "
            "files do, which are for tests); give the file that has both, such as instances_….json"
        )
    return scan


def _add_category(scan: Scan, start: int, value: Any, starts: dict[int, int]) -> None:
    """Notes a category; `starts` holds the byte of each id's entry."""
    number, name = (value.get("id"), value.get("name")) if isinstance(value, dict) else (None, None)
    if not isinstance(number, int) or isinstance(number, bool) or not isinstance(name, str):
        raise UsageError(f"{scan.file}: category {printable(value)} has no whole number as id, or no name")
    name = _utf8(name)
    if not sources.is_text(name):
        raise UsageError(f"{scan.file}: the name of category {number} is no text: {printable(name)!r}")
    before = scan.categories.setdefault(number, name)
    kind = scan.things.setdefault(number, value.get("isthing"))
    if (before, kind) != (name, value.get("isthing")):
        raise UsageError(
            f"{scan.file}: two categories have the id {number}: {printable(before)!r} at byte {starts[number]}, "
            f"{printable(name)!r} at byte {start}; give each an id of its own"
        )
    starts.setdefault(number, start)


def _utf8(text: str) -> str:
    """Text of the scan, which reads bytes as Latin-1."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _malformed(given: str, section: str, start: int, value: Any) -> Reject:
    says = printable(json.dumps(value)[:100])
    advice = f"the entry of {section} at byte {start} is not as COCO has it: {says}; correct or remove it"
    place, code = f"{section} at byte {start}", f"{section[:-1]}_malformed"
    return Reject(given or "train", sources.NAMELESS, place, code, advice, whole=section == "images")


def _add_annotation(scan: Scan, start: int, text: str, value: dict[str, Any]) -> None:
    if "segments_info" in value:
        scan.is_panoptic = True
        _count_segments(scan, value["segments_info"])
    image = value.get("image_id")
    if not isinstance(image, int | str):
        scan.malformed.append((_malformed(scan.given, "annotations", start, value), [start, len(text)]))
        return
    number = value.get("id")
    # 0 stands for an id that is absent or no number; such ones are not checked for repetition.
    scan.id.append(number if isinstance(number, int) and abs(number) < 2**62 else 0)
    scan.image.append(scan.numbers.setdefault(image, len(scan.numbers)))
    scan.start.append(start)
    scan.length.append(len(text))
    scan.digest.append(sources.position(text))
    scan.has_masks |= bool(value.get("segmentation"))


def _count_segments(scan: Scan, segments: Any) -> None:
    for segment in segments if isinstance(segments, list) else ():
        category = segment.get("category_id") if isinstance(segment, dict) else None
        scan.segments[category if isinstance(category, int | float) else None] += 1


def _add_image(scan: Scan, start: int, text: str, value: dict[str, Any]) -> None:
    if not isinstance(value.get("id"), int | str) or not isinstance(value.get("file_name"), str):
        scan.malformed.append((_malformed(scan.given, "images", start, value), [start, len(text)]))
        return
    name = _utf8(value["file_name"])
    scan.images.append({"id": value["id"], "name": name, "height": value.get("height"), "width": value.get("width")})


def _as_it_is(reject: Reject, place: list[int]) -> Reject:
    return reject


def items(
    request: Request,
    scan: Scan,
    objects: Callable[[list[list[int]]], int] = len,
    stray: Callable[[Reject, list[int]], Reject] = _as_it_is,
) -> Iterator[Example | Reject]:
    """Examples and rejects of one file, whatever the order in it.

    Args:
        objects: how many objects annotations stand for, given as (first byte, length).
        stray: what becomes of the reject of an annotation that belongs to no image, given with its place.
    """
    for reject, place in scan.malformed:
        yield reject if reject.whole else stray(reject, place)
    image, start, length, ids, digest = _columns(scan)
    order = np.lexsort((digest, ids))
    repeated = np.zeros(len(ids), bool)
    repeated[order[1:]] = (np.diff(ids[order]) == 0) & (ids[order[1:]] != 0)
    names = {scan.numbers.get(entry["id"]): entry["name"] for entry in scan.images} if repeated.any() else {}
    for row in np.flatnonzero(repeated):
        code, advice = "duplicate_annotation_id", "give each annotation an id of its own"
        name = names.get(int(image[row]), "no image") or sources.NAMELESS
        reject = Reject(scan.given or "train", name, str(ids[row]), code, advice, whole=False)
        yield stray(reject, [int(start[row]), int(length[row])])
    order = np.lexsort((digest, image))[~repeated[np.lexsort((digest, image))]]
    bounds = np.searchsorted(image[order], np.arange(len(scan.numbers) + 1))
    folders = sources.folders_of(request, "images", scan.given)
    claimed: set[Any] = set()
    for entry in sorted(scan.images, key=lambda entry: (str(entry["id"]), entry["name"])):
        key, name = str(entry["id"]), entry["name"]
        split = sources.split_of(scan.given, key, request.dataset)
        number = scan.numbers.get(entry["id"])
        rows = order[bounds[number] : bounds[number + 1]] if number is not None else order[:0]
        places = [[int(start[row]), int(length[row])] for row in rows]
        if entry["id"] in claimed:
            advice = "two images have this id; give each one of its own"
            yield Reject(split, name or sources.NAMELESS, key, "duplicate_image_id", advice)
            continue
        claimed.add(entry["id"])
        try:
            file, sha256 = sources.find(name, folders)
        except Rejected as rejected:
            shown = name or sources.NAMELESS
            yield Reject(split, shown, key, rejected.code, rejected.advice, objects=objects(places))
            continue
        more = {"given": scan.given, "height": entry["height"], "width": entry["width"], "rows": places}
        content = sources.digest(sha256, str(entry["height"]), str(entry["width"]), str(sorted(int(digest[row]) for row in rows)))
        yield Example(split, key, file, name, content, more, {file: sha256})
    for image_id in sorted(set(scan.numbers) - claimed, key=str):
        for row in order[bounds[scan.numbers[image_id]] : bounds[scan.numbers[image_id] + 1]]:
            advice = "the list of images has no such id; add the image or remove the annotation"
            file = f"image {printable(image_id)}"
            reject = Reject(scan.given or "train", file, str(ids[row]), "unknown_image", advice, whole=False)
            yield stray(reject, [int(start[row]), int(length[row])])


def _columns(scan: Scan) -> tuple[np.ndarray, ...]:
    columns = (("image", "q"), ("start", "q"), ("length", "q"), ("id", "q"), ("digest", "Q"))
    return tuple(np.frombuffer(getattr(scan, name), dtype) for name, dtype in columns)


def objects(example: Example, request: Request) -> int:
    """How many annotations are for an image."""
    return len(example.more["rows"])


def annotation(file: str, digest: str, start: int, length: int) -> dict[str, Any]:
    """The annotation at a place in its file."""
    content = files.kept(file, digest)
    return json.loads(os.pread(content.fileno(), length, start).decode("utf-8", "replace"))


def check_size(example: Example, image: Image) -> None:
    """Compares an image with what its entry says.

    Raises:
        Rejected: it has another size.
    """
    stated, actual = (example.more["height"], example.more["width"]), (image.height, image.width)
    if stated != (None, None) and stated != actual:
        turned = "; the annotation was made on the turned image: dataset.convert={exif_rotation:apply}" if image.turned and stated == actual[::-1] else ""
        raise Rejected("image_size", f"the annotation says {stated[1]}x{stated[0]}, the file is {actual[1]}x{actual[0]}{turned or '; correct the one or replace the other'}")


def load(example: Example, image: Image, request: Request) -> dict[str, Any]:
    """Boxes clipped to the image, with masks where asked for; objects that cannot be used are listed with a reason."""
    check_size(example, image)
    given = example.more["given"]
    file, digest = request.places["annotations"][given], request.shared["digests"][given]
    found: dict[str, Any] = {"objects": [], "rejects": [], "clipped": 0}
    for value in sorted((annotation(file, digest, start, length) for start, length in example.more["rows"]), key=_order):
        try:
            item, clipped = describe(value, image, request)
            if request.shared["masks"]:
                item["mask"] = _mask(value, image)
            found["objects"].append(item)
            found["clipped"] += clipped
        except Rejected as rejected:
            found["rejects"].append((str(value.get("id")), rejected))
    return found


def _order(annotation: Mapping[str, Any]) -> tuple[int, str]:
    """By id: the order in the file must not reach the record."""
    number = annotation.get("id")
    return (number if isinstance(number, int) else 0, json.dumps(annotation, sort_keys=True))


def describe(annotation: Mapping[str, Any], image: Image, request: Request) -> tuple[dict[str, Any], bool]:
    """An object without its mask, and whether its box had to be cut.

    Raises:
        Rejected: its category or its box cannot be used.
    """
    category = annotation.get("category_id")
    label, text = request.shared["labels"].get(category, (0, "")) if isinstance(category, int) else (0, "")
    if not label:
        raise Rejected("unknown_category", f"category {printable(category)!r} is not in the list of categories; add it there, or remove the object")
    box, clipped = sources.clipped(annotation.get("bbox"), image.height, image.width)
    area: Any = annotation.get("area")
    item = {
        "box": (box[0] / image.height, box[1] / image.width, box[2] / image.height, box[3] / image.width),
        "label": label,
        "text": text,
        "is_crowd": int(bool(annotation.get("iscrowd", 0))),
        "area": float(area) if sources.is_number(area) and area >= 0 else (box[2] - box[0]) * (box[3] - box[1]),
    }
    return item, clipped


def _mask(annotation: Mapping[str, Any], image: Image) -> bytes:
    if not annotation.get("segmentation"):
        raise Rejected("mask_missing", "other objects have a mask; draw one, or build boxes only: dataset.include_masks=false")
    return masks.encode_object(annotation["segmentation"], image.height, image.width)
