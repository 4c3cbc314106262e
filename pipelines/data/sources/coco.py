"""COCO instances: images, and a JSON file with boxes and, as polygons or run lengths, masks.

The file is scanned once, in constant memory but for a few numbers per annotation; workers read an
image's annotations from their places in it.
"""

import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.data import boxes, files, json_elements, keys, lookup, masks
from pipelines.data.example import Example, Folder, Loaded, Reject, Rejected
from pipelines.data.images import Image
from pipelines.data.json_elements import Element
from pipelines.data.listing import Facts, Listing, Request, Tally
from pipelines.outside import printable, quoted
from pipelines.usage import UsageError

FACTS = Facts(
    tasks=("detection",),
    required=("images", "annotations"),
    several=("images",),
    object_masks=True,
    numbered=True,
)
SECTIONS = ("images", "annotations", "categories")
TOGETHER = 2**18  # bytes of an annotation file that are read at once
LARGEST_ID = 10_000  # the largest category id that is kept as a label

Span = list[int]  # where an annotation lies in its file: first byte, and length


def _integers(kind: str = "q") -> Any:
    """A field that is a column of whole numbers."""
    return field(default_factory=lambda: array(kind))


@dataclass
class Scan:
    """One annotation file: its images and categories, and where each annotation lies."""

    given: str  # the split the file is for, or ALL
    file: str = ""
    categories: dict[int, str] = field(default_factory=dict)
    things: dict[int, Any] = field(default_factory=dict)  # panoptic: `isthing` by category
    images: list[dict[str, Any]] = field(default_factory=list)
    numbers: dict[Any, int] = field(
        default_factory=dict
    )  # image ids, numbered in the order they turn up
    # The columns of a table of annotations.
    image: array = _integers()
    start: array = _integers()
    length: array = _integers()
    id: array = _integers()
    digest: array = _integers("Q")
    has_masks: bool = False
    is_panoptic: bool = False
    malformed: list[tuple[Reject, Span]] = field(default_factory=list)
    entries: Counter[str] = field(default_factory=Counter)  # elements met, by section
    segments: Counter[Any] = field(default_factory=Counter)  # panoptic: segments met, by category


class Table:
    """The annotations of a file, and which of them belong to each image; repeated ids are set apart."""

    def __init__(self, scan: Scan) -> None:
        self.id = np.frombuffer(scan.id, "q")
        self.image = np.frombuffer(scan.image, "q")
        self.digest = np.frombuffer(scan.digest, "Q")
        self._start = np.frombuffer(scan.start, "q")
        self._length = np.frombuffer(scan.length, "q")
        self.repeated = self._find_repeated()
        by_image = np.lexsort((self.digest, self.image))
        self._order = by_image[~self.repeated[by_image]]
        images = np.arange(len(scan.numbers) + 1)
        self._bounds = np.searchsorted(self.image[self._order], images)

    def _find_repeated(self) -> np.ndarray:
        """Whether the id of an annotation is there a second time; 0 stands for none."""
        repeated = np.zeros(len(self.id), bool)
        order = np.lexsort((self.digest, self.id))
        ids = self.id[order]
        is_same = np.diff(ids) == 0
        has_id = ids[1:] != 0
        repeated[order[1:]] = is_same & has_id
        return repeated

    def rows(self, image: int | None) -> np.ndarray:
        """The rows of an image, given by its number."""
        if image is None:
            return self._order[:0]
        return self._order[self._bounds[image] : self._bounds[image + 1]]

    def span(self, row: int) -> Span:
        """Where an annotation lies."""
        return [int(self._start[row]), int(self._length[row])]


def listing(request: Request) -> Listing:
    """Every image of the annotation files; classes in the order of the category ids."""
    digests = lookup.files_of(request, "annotations")
    scans = scan_all(request, digests)
    categories = merged(request, scans)
    if any(scan.is_panoptic for scan in scans):
        paths = ", ".join(request.places["annotations"].values())
        advice = "it needs dataset=coco_panoptic dataset.masks=<folder of its PNGs>"
        raise UsageError(f"{paths}: COCO panoptic; {advice}")
    labels, numbers = numbered(request, categories)
    has_masks = request.dataset.include_masks
    if has_masks is None:
        has_masks = any(scan.has_masks for scan in scans)
    named: dict[int, tuple[int, str]] = {}
    for category, number in numbers.items():
        named[category] = (number, labels[number - 1])
    shared = {"masks": has_masks, "digests": digests, "labels": named}
    entries: Counter[str] = Counter()
    for scan in scans:
        entries.update(scan.entries)
    tally = Tally(entries["images"], entries["annotations"])
    examples = (item for scan in scans for item in items(request, scan))
    return Listing(
        labels,
        has_masks,
        examples,
        shared,
        tally,
    )


def scan_all(request: Request, digests: Mapping[str, str]) -> list[Scan]:
    """Reads the annotation files of all splits."""
    files_by_split = request.places["annotations"]
    return [scan(given, files_by_split[given], digest) for given, digest in digests.items()]


def merged(request: Request, scans: Iterable[Scan]) -> dict[int, str]:
    """Names of the categories of all annotation files, by their ids.

    Raises:
        UsageError: there are none, or two files number them differently.
    """
    categories: dict[int, str] = {}
    earlier: list[Scan] = []
    for scan in scans:
        for first in earlier:
            _check_alike(first, scan)
        categories |= scan.categories
        earlier.append(scan)
    if not categories:
        paths = ", ".join(request.places["annotations"].values())
        raise UsageError(f"{paths}: no categories; expected COCO")
    return categories


def _check_alike(first: Scan, second: Scan) -> None:
    """Refuses two files in which an id means two things, or a name has other ids."""
    for number in sorted(set(first.categories) & set(second.categories)):
        names = (first.categories[number], second.categories[number])
        if names[0] != names[1]:
            says = [f"category {number} is {quoted(name)}" for name in names]
            raise _numbered_apart(first, second, says)
        kinds = (first.things.get(number), second.things.get(number))
        if kinds[0] != kinds[1]:
            says = [f"{quoted(names[0])} has isthing {kind!r}" for kind in kinds]
            raise _numbered_apart(first, second, says)
    first_ids = _ids_by_name(first)
    second_ids = _ids_by_name(second)
    for name in sorted(set(first_ids) & set(second_ids)):
        ids = (first_ids[name], second_ids[name])
        if not (ids[0] <= ids[1] or ids[1] <= ids[0]):
            says = [f"{quoted(name)} is category {_enumerated(numbers)}" for numbers in ids]
            raise _numbered_apart(first, second, says)


def _ids_by_name(scan: Scan) -> dict[str, set[int]]:
    ids: dict[str, set[int]] = {}
    for number, name in scan.categories.items():
        ids.setdefault(name, set()).add(number)
    return ids


def _enumerated(numbers: Iterable[int]) -> str:
    return " and ".join(map(str, sorted(numbers)))


def _numbered_apart(
    first: Scan,
    second: Scan,
    says: Sequence[str],
) -> UsageError:
    return UsageError(
        "dataset.annotations: two files number their categories differently: "
        f"in {first.file} {says[0]}, in {second.file} {says[1]}; "
        "give both files one list of categories"
    )


def numbered(
    request: Request, categories: Mapping[int, str]
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names in the order of their labels, which start at 1, and the label of each category id."""
    ids = sorted(categories)
    if not request.dataset.keep_category_ids:
        labels = {number: label for label, number in enumerate(ids, start=1)}
        return tuple(categories[number] for number in ids), labels
    if ids[0] < 1 or ids[-1] > LARGEST_ID:
        says = f"category ids go from {ids[0]} to {ids[-1]}"
        raise UsageError(f"dataset.keep_category_ids: {says}; 0 is the background")
    names: list[str] = []
    for number in range(1, ids[-1] + 1):
        names.append(categories.get(number, f"(no category {number})"))
    return tuple(names), {number: number for number in ids}


def scan(given: str, file: str, digest: str) -> Scan:
    """Reads an annotation file once.

    Raises:
        UsageError: it is no JSON, or not laid out as COCO's.
    """
    scan = Scan(given, file)
    met: set[str] = set()
    starts: dict[int, int] = {}
    # A second handle, since the one that is kept is read by position.
    with os.fdopen(os.dup(files.kept(file, digest).fileno()), "rb") as content:
        content.seek(0)
        for element in json_elements.read(content, file, SECTIONS, met):
            _add(scan, element, starts)
    for section in ("images", "categories"):
        if section not in met:
            expected = "images, annotations, categories"
            raise UsageError(f"{file}: no {section}; expected COCO ({expected})")
    if "annotations" not in met:
        raise UsageError(
            f"{file}: no annotations; it lists {len(scan.images)} images and says nothing of them "
            "(as COCO's image_info files do, which are for tests); "
            "give the file that has both, such as instances_….json"
        )
    return scan


def _add(scan: Scan, element: Element, starts: dict[int, int]) -> None:
    """Takes up one element; `starts` holds the byte of each category's entry."""
    scan.entries[element.section] += 1
    if element.section == "categories":
        _add_category(scan, element, starts)
    elif not isinstance(element.value, dict):
        _add_malformed(scan, element)
    elif element.section == "annotations":
        _add_annotation(scan, element)
    else:
        _add_image(scan, element)


def _add_category(
    scan: Scan,
    element: Element,
    starts: dict[int, int],
) -> None:
    entry = element.value if isinstance(element.value, dict) else {}
    number = entry.get("id")
    name = entry.get("name")
    if not isinstance(number, int) or isinstance(number, bool) or not isinstance(name, str):
        says = f"category {printable(element.value)} has no whole number as id, or no name"
        raise UsageError(f"{scan.file}: {says}")
    name = _utf8(name)
    if not keys.is_text(name):
        says = f"the name of category {number} is no text: {quoted(name)}"
        raise UsageError(f"{scan.file}: {says}")
    kind = entry.get("isthing")
    known_name = scan.categories.setdefault(number, name)
    known_kind = scan.things.setdefault(number, kind)
    if (known_name, known_kind) != (name, kind):
        raise UsageError(
            f"{scan.file}: two categories have the id {number}: "
            f"{quoted(known_name)} at byte {starts[number]}, "
            f"{quoted(name)} at byte {element.start}; give each its own id"
        )
    starts.setdefault(number, element.start)


def _utf8(text: str) -> str:
    """Text of the scan, which reads bytes as Latin-1."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _add_malformed(scan: Scan, element: Element) -> None:
    section = element.section
    record = f"{section} at byte {element.start}"
    says = printable(json.dumps(element.value)[:100])
    reject = Reject(
        split=scan.given or "train",
        file=lookup.NAMELESS,
        record=record,
        code=f"{section[:-1]}_malformed",
        advice=f"the entry of {record} is not as COCO has it: {says}; correct or remove it",
        whole=section == "images",
    )
    scan.malformed.append((reject, [element.start, len(element.text)]))


def _add_annotation(scan: Scan, element: Element) -> None:
    annotation = element.value
    if "segments_info" in annotation:
        scan.is_panoptic = True
        _count_segments(scan, annotation["segments_info"])
    image = annotation.get("image_id")
    if not isinstance(image, int | str):
        _add_malformed(scan, element)
        return
    number = annotation.get("id")
    # 0 stands for an id that is absent or no number; such ones are not checked for repetition.
    has_id = isinstance(number, int) and abs(number) < 2**62
    scan.id.append(number if has_id else 0)
    scan.image.append(scan.numbers.setdefault(image, len(scan.numbers)))
    scan.start.append(element.start)
    scan.length.append(len(element.text))
    scan.digest.append(keys.position(element.text))
    scan.has_masks |= bool(annotation.get("segmentation"))


def _count_segments(scan: Scan, segments: Any) -> None:
    for segment in segments if isinstance(segments, list) else ():
        category = segment.get("category_id") if isinstance(segment, dict) else None
        scan.segments[category if isinstance(category, int | float) else None] += 1


def _add_image(scan: Scan, element: Element) -> None:
    entry = element.value
    number = entry.get("id")
    name = entry.get("file_name")
    if not isinstance(number, int | str) or not isinstance(name, str):
        _add_malformed(scan, element)
        return
    image = {
        "id": number,
        "name": _utf8(name),
        "height": entry.get("height"),
        "width": entry.get("width"),
    }
    scan.images.append(image)


def _as_it_is(reject: Reject, span: Span) -> Reject:
    return reject


def items(
    request: Request,
    scan: Scan,
    objects: Callable[[list[Span]], int] = len,
    stray: Callable[[Reject, Span], Reject] = _as_it_is,
) -> Iterator[Example | Reject]:
    """Examples and rejects of one file, whatever the order in it.

    Args:
        objects: how many objects annotations stand for.
        stray: what becomes of the reject of an annotation that belongs to no image.
    """
    for reject, span in scan.malformed:
        yield reject if reject.whole else stray(reject, span)
    table = Table(scan)
    for reject, span in _repeated(scan, table):
        yield stray(reject, span)
    folders = lookup.folders_of(request, "images", scan.given)
    claimed: set[Any] = set()
    for entry in sorted(scan.images, key=_image_order):
        split = keys.chosen_split(scan.given, str(entry["id"]), request.dataset)
        rows = table.rows(scan.numbers.get(entry["id"]))
        spans = [table.span(row) for row in rows]
        try:
            if entry["id"] in claimed:
                spans = []  # They belong to the first image of this id.
                advice = "two images have this id; give each its own"
                raise Rejected("duplicate_image_id", advice)
            claimed.add(entry["id"])
            digests = sorted(int(table.digest[row]) for row in rows)
            yield _example(
                split,
                scan,
                entry,
                spans,
                digests,
                folders,
            )
        except Rejected as rejected:
            name = entry["name"] or lookup.NAMELESS
            key = str(entry["id"])
            reason = (rejected.code, rejected.advice)
            yield Reject(split, name, key, *reason, objects=objects(spans))
    for reject, span in _unclaimed(scan, table, claimed):
        yield stray(reject, span)


def _image_order(entry: Mapping[str, Any]) -> tuple[str, str]:
    """By id: the order in the file must not reach the index."""
    return (str(entry["id"]), entry["name"])


def _repeated(scan: Scan, table: Table) -> Iterator[tuple[Reject, Span]]:
    """Annotations whose id another one has."""
    if not table.repeated.any():
        return
    names: dict[int | None, str] = {}
    for entry in scan.images:
        names[scan.numbers.get(entry["id"])] = entry["name"]
    for row in np.flatnonzero(table.repeated):
        reject = Reject(
            split=scan.given or "train",
            file=names.get(int(table.image[row]), "no image") or lookup.NAMELESS,
            record=str(table.id[row]),
            code="duplicate_annotation_id",
            advice="give each annotation its own id",
            whole=False,
        )
        yield reject, table.span(row)


def _example(
    split: str,
    scan: Scan,
    entry: Mapping[str, Any],
    spans: list[Span],
    digests: list[int],
    folders: Sequence[Folder],
) -> Example:
    height = entry["height"]
    width = entry["width"]
    file, sha256 = lookup.find(entry["name"], folders)
    return Example(
        split=split,
        key=str(entry["id"]),
        file=file,
        name=entry["name"],
        content=keys.joint_digest(sha256, str(height), str(width), str(digests)),
        own={"given": scan.given, "height": height, "width": width, "spans": spans},
        files={file: sha256},
    )


def _unclaimed(
    scan: Scan,
    table: Table,
    claimed: set[Any],
) -> Iterator[tuple[Reject, Span]]:
    """Annotations of images that are not listed."""
    for image in sorted(set(scan.numbers) - claimed, key=str):
        for row in table.rows(scan.numbers[image]):
            reject = Reject(
                split=scan.given or "train",
                file=f"image {printable(image)}",
                record=str(table.id[row]),
                code="unknown_image",
                advice="the list of images has no such id; add the image or remove the annotation",
                whole=False,
            )
            yield reject, table.span(row)


def objects(example: Example, request: Request) -> int:
    """How many annotations are for an image."""
    return len(example.own["spans"])


def annotations_at(file: str, digest: str, spans: Sequence[Span]) -> list[dict[str, Any]]:
    """The annotations at places in their file."""
    handle = files.kept(file, digest).fileno()
    first = min((start for start, _ in spans), default=0)
    end = max((start + length for start, length in spans), default=0)
    # An image's annotations mostly follow one another.
    if end - first <= TOGETHER:
        content = os.pread(handle, end - first, first)
        texts = [content[start - first : start - first + length] for start, length in spans]
    else:
        texts = [os.pread(handle, length, start) for start, length in spans]
    return json.loads(f"[{b','.join(texts).decode('utf-8', 'replace')}]")


def check_size(example: Example, image: Image) -> None:
    """Compares an image with what its entry says.

    Raises:
        Rejected: it has another size.
    """
    stated = (example.own["height"], example.own["width"])
    actual = (image.height, image.width)
    if stated in ((None, None), actual):
        return
    says = f"the annotation says {stated[1]}x{stated[0]}, the file is {actual[1]}x{actual[0]}"
    advice = "correct the one or replace the other"
    if image.turned and stated == actual[::-1]:
        convert = "dataset.convert={exif_rotation:apply}"
        advice = f"the annotation was made on the turned image: {convert}"
    raise Rejected("image_size", f"{says}; {advice}")


def load(example: Example, image: Image, request: Request) -> Loaded:
    """Boxes clipped to the image, with masks where asked for.

    Objects that cannot be used are among its rejects.
    """
    check_size(example, image)
    given = example.own["given"]
    file = request.places["annotations"][given]
    digest = request.shared["digests"][given]
    annotations = annotations_at(file, digest, example.own["spans"])
    loaded = Loaded({"objects": []})
    for entry in _in_order(annotations):
        try:
            item, clipped = describe(entry, image, request)
            if request.shared["masks"]:
                item["mask"] = _mask(entry, image)
        except Rejected as rejected:
            loaded.rejects.append((str(entry.get("id")), rejected))
            continue
        loaded.record["objects"].append(item)
        loaded.clipped += clipped
    return loaded


def _in_order(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By id, and by all that they say where ids are equal: the order in the file must not reach the record."""
    if len({_number(annotation) for annotation in annotations}) == len(annotations):
        return sorted(annotations, key=_number)
    return sorted(annotations, key=_annotation_order)


def _annotation_order(annotation: Mapping[str, Any]) -> tuple[int, str]:
    return (_number(annotation), json.dumps(annotation, sort_keys=True))


def _number(annotation: Mapping[str, Any]) -> int:
    number = annotation.get("id")
    return number if isinstance(number, int) else 0


def describe(
    annotation: Mapping[str, Any], image: Image, request: Request
) -> tuple[dict[str, Any], bool]:
    """An object without its mask, and whether its box had to be cut.

    Raises:
        Rejected: its category or its box cannot be used.
    """
    category = annotation.get("category_id")
    labels = request.shared["labels"]
    if not isinstance(category, int) or category not in labels:
        says = f"category {printable(repr(category))} is not in the list of categories"
        raise Rejected("unknown_category", f"{says}; add it there, or remove the object")
    label, text = labels[category]
    box, clipped = boxes.clipped(
        annotation.get("bbox"),
        image.height,
        image.width,
    )
    area: Any = annotation.get("area")
    item = {
        "box": box.fractions(image.height, image.width),
        "label": label,
        "text": text,
        "is_crowd": int(bool(annotation.get("iscrowd", 0))),
        "area": float(area) if boxes.is_number(area) and area >= 0 else box.area(),
    }
    return item, clipped


def _mask(annotation: Mapping[str, Any], image: Image) -> bytes:
    if not annotation.get("segmentation"):
        advice = "draw one, or build boxes only: dataset.include_masks=false"
        raise Rejected("mask_missing", f"other objects have a mask; {advice}")
    return masks.encode_object(
        annotation["segmentation"],
        image.height,
        image.width,
    )
