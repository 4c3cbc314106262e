"""Pascal VOC: XML boxes, or the masks of its segmentation split, for the images that a list file names."""

import functools
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from xml.etree import ElementTree

from pipelines.data import files, sources
from pipelines.data.images import EXTENSIONS, Image
from pipelines.data.sources import (
    Example,
    Folder,
    Listing,
    Reject,
    Rejected,
    Request,
    Tally,
    mask_folder,
)
from pipelines.outside import printable
from pipelines.usage import UsageError

TASKS = ("detection", "segmentation")
UNREADABLE = (ElementTree.ParseError, OSError, ValueError, LookupError)  # the last for an encoding that Python has not


def listing(request: Request) -> Listing:
    """Every image named by `dataset.lists`, or every annotation where there are no lists."""
    field = "annotations" if request.dataset.task == "detection" else "masks"
    if field not in request.places:
        raise UsageError(f"dataset.{field}: {request.dataset.task} from VOC needs it")
    tally = Tally()
    if request.dataset.task == "segmentation":
        return Listing(mask_folder.class_names(request), True, _items(request, field, tally), tally=tally)
    labels = tuple(str(label) for label in request.dataset.labels or _names(request))
    shared = {"labels": {label: number for number, label in enumerate(labels, start=1)}}
    return Listing(labels, False, _items(request, field, tally), shared, tally)


def _names(request: Request) -> list[str]:
    """Class names that occur in the annotations, sorted."""
    names: set[str] = set()
    for given in request.places["annotations"]:
        folder = request.folder("annotations", given)
        for file in folder.digests:
            try:
                root = _annotation(f"{folder.path}/{file}", folder.digests[file])
                names.update(_name(node) for node in root.iter("object"))
            except UsageError:
                raise
            except UNREADABLE:
                continue  # Rejected, with its reason, where its image is loaded.
    return sorted(names - {""})


def _name(node: ElementTree.Element) -> str:
    return (node.findtext("name") or "").strip()


def _items(request: Request, field: str, tally: Tally) -> Iterator[Example | Reject]:
    for given in request.places.get("lists") or request.places[field]:
        images, drawn = sources.folder_of(request, "images", given), sources.folder_of(request, field, given)
        names = [
            name for name in (*drawn.digests, *drawn.unfit) if name.endswith(".xml") or not sources.is_ballast(name)
        ]
        annotated = mask_folder.by_stem(names)
        stems = _listed(request, given) if "lists" in request.places else list(annotated)
        tally.examples += len(stems)
        pictures = _pictures(images)
        for stem in stems:
            split = sources.split_of(given, stem, request.dataset)
            yield _item(split, stem, (images, pictures.get(stem, [])), (drawn, annotated.get(stem, "")), field)


def _listed(request: Request, given: str) -> list[str]:
    """The first word of every line of a list: the image's name without its ending."""
    sources.files_of(request, "lists")
    file = request.places["lists"][given]
    try:
        lines = files.read(file).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not a list in UTF-8: {error}") from None
    return [line.split()[0] for line in lines if line.strip()]


def _pictures(images: Folder) -> dict[str, list[str]]:
    """Names of images by what comes before their ending."""
    pictures: dict[str, list[str]] = {}
    for name in (*images.digests, *images.unfit):
        if name in images.unfit or name.lower().endswith(EXTENSIONS):
            pictures.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)
    return pictures


def _item(
    split: str, stem: str, pictured: tuple[Folder, list[str]], annotated: tuple[Folder, str], field: str
) -> Example | Reject:
    (images, names), (drawn, mask) = pictured, annotated
    refusal = _refusal(stem, images, names, drawn, mask, field)
    if refusal:
        lost = (
            _objects(f"{drawn.path}/{mask}", drawn.digests[mask])
            if mask in drawn.digests and field == "annotations"
            else 0
        )
        return Reject(split, names[0] if names else stem, stem, *refusal, objects=lost)
    content = sources.digest(images.digests[names[0]], drawn.digests[mask])
    file, annotation = f"{images.path}/{names[0]}", f"{drawn.path}/{mask}"
    listed = {file: images.digests[names[0]], annotation: drawn.digests[mask]}
    return Example(split, stem, file, names[0], content, {"mask": annotation}, listed)


def _refusal(stem: str, images: Folder, names: list[str], drawn: Folder, mask: str, field: str) -> tuple[str, str] | None:
    """Why an image cannot be taken with its annotation."""
    if len(names) > 1:
        return "image_ambiguous", f"several images have this name: {', '.join(names)}; rename or remove all but one"
    if not names or names[0] in images.unfit:
        missing = ("image_missing", "add the image to dataset.images, or take it off the list")
        return images.refusal(names[0] if names else stem) or missing
    if mask not in drawn.digests:
        missing = (f"no_{field.rstrip('s')}", f"add it to dataset.{field}, or take the image off the list")
        return drawn.refusal(mask or stem) or missing
    return None


@functools.lru_cache(maxsize=2)
def _annotation(file: str, content: str) -> ElementTree.Element:
    """The root of an annotation; `content` is a digest over what it is read for, so that none is kept too long."""
    return ElementTree.fromstring(files.read(file))


def _objects(file: str, content: str) -> int:
    try:
        return sum(1 for _ in _annotation(file, content).iter("object"))
    except UsageError:
        raise
    except UNREADABLE:
        return 0  # Rejected, with its reason, as a whole.


def objects(example: Example, request: Request) -> int:
    """How many objects the annotation of an image has."""
    return _objects(example.more["mask"], example.content) if request.dataset.task == "detection" else 0


def load(example: Example, image: Image, request: Request) -> dict[str, Any]:
    """Boxes or classes of one image."""
    if request.dataset.task == "segmentation":
        return mask_folder.load(example, image, request)
    try:
        root = ElementTree.fromstring(sources.read(example, example.more["mask"]))
    except UsageError:  # The store's failure, not the annotation's.
        raise
    except UNREADABLE as error:
        raise Rejected("annotation_malformed", f"the annotation cannot be read: {error}") from None
    stated = tuple((root.findtext(f"size/{side}") or "").strip() for side in ("height", "width"))
    if stated != ("", "") and stated != (str(image.height), str(image.width)):
        raise Rejected(
            "image_size",
            f"the annotation says {stated[1]}x{stated[0]}, the file is {image.width}x{image.height}; correct the one or replace the other",
        )
    found: dict[str, Any] = {"objects": [], "rejects": [], "clipped": 0}
    for number, node in enumerate(root.iter("object"), start=1):
        try:
            item, clipped = _object(node, image, request.shared["labels"])
            found["objects"].append(item)
            found["clipped"] += clipped
        except Rejected as rejected:
            found["rejects"].append((f"object {number}", rejected))
    return found


def _object(node: ElementTree.Element, image: Image, labels: dict[str, int]) -> tuple[dict[str, Any], bool]:
    name = _name(node)
    if name not in labels:
        raise Rejected(
            "unknown_category",
            f"class {printable(name)!r} is not in dataset.labels; add it there, or remove the object",
        )
    try:
        left, top, right, bottom = (
            float(node.findtext(f"bndbox/{side}") or "") for side in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError:
        raise Rejected(
            "box_malformed", "bndbox needs xmin, ymin, xmax and ymax, in pixels; correct it, or remove the object"
        ) from None
    # VOC counts pixels from 1 and includes the last one: where the two are equal, the box is one pixel wide.
    width = right - left + 1 if right >= left else 0
    height = bottom - top + 1 if bottom >= top else 0
    box, clipped = sources.clipped([left - 1, top - 1, width, height], image.height, image.width)
    item = {
        "box": (box[0] / image.height, box[1] / image.width, box[2] / image.height, box[3] / image.width),
        "label": labels[name],
        "text": name,
        # As VOC's own evaluation does with what it calls difficult, COCO's leaves crowds out.
        "is_crowd": int((node.findtext("difficult") or "0").strip() == "1"),
        "area": (box[2] - box[0]) * (box[3] - box[1]),
    }
    return item, clipped
