"""Pascal VOC: XML boxes, or the masks of its segmentation split, for the images that a list file names."""

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from pipelines.data import files, sources
from pipelines.data.content import ALL
from pipelines.data.images import Image
from pipelines.data.sources import (
    Example,
    Listing,
    Reject,
    Rejected,
    Request,
    mask_folder,
)
from pipelines.usage import UsageError

TASKS = ("detection", "segmentation")


def listing(request: Request) -> Listing:
    """Every image named by `dataset.lists`, or every annotation where there are no lists."""
    field = "annotations" if request.dataset.task == "detection" else "masks"
    if field not in request.places:
        raise UsageError(f"dataset.{field}: {request.dataset.task} from VOC needs it")
    if request.dataset.task == "segmentation":
        return Listing(mask_folder.class_names(request), True, _items(request, field))
    labels = tuple(str(label) for label in request.dataset.labels or _names(request))
    return Listing(labels, False, _items(request, field), {"labels": {label: number for number, label in enumerate(labels, start=1)}})


def _names(request: Request) -> list[str]:
    """Class names that occur in the annotations, sorted."""
    (folder,) = request.places["annotations"].values()
    names: set[str] = set()
    for file in request.digests["annotations"][ALL]:
        try:
            names.update((item.findtext("name") or "").strip() for item in ElementTree.fromstring(files.read(f"{folder}/{file}")).iter("object"))
        except (ElementTree.ParseError, OSError):
            continue  # Rejected, with its reason, where its image is loaded.
    return sorted(names - {""})


def _items(request: Request, field: str) -> Iterator[Example | Reject]:
    images, drawn = request.digests["images"][ALL], request.digests[field][ALL]
    by_stem = {name.rsplit(".", 1)[0]: name for name in sorted(images)}
    annotated = {name.rsplit(".", 1)[0]: name for name in drawn}
    for given, stem in _stems(request, annotated):
        split = sources.split_of(given, stem, request.dataset)
        if stem not in by_stem:
            yield Reject(split, stem, stem, "image_missing", "add the image to dataset.images, or take it off the list")
        elif stem not in annotated:
            yield Reject(split, by_stem[stem], stem, f"no_{field.rstrip('s')}", f"add it to dataset.{field}, or take the image off the list")
        elif sources.inside(request.places["images"][ALL], by_stem[stem]) is None:
            yield Reject(split, by_stem[stem], stem, *sources.ESCAPES)
        else:
            more = {"mask": f"{request.places[field][ALL]}/{annotated[stem]}"}
            content = sources.digest(images[by_stem[stem]], drawn[annotated[stem]])
            yield Example(split, stem, f"{request.places['images'][ALL]}/{by_stem[stem]}", by_stem[stem], content, more)


def _stems(request: Request, annotated: dict[str, str]) -> Iterator[tuple[str, str]]:
    if "lists" not in request.places:
        yield from ((ALL, stem) for stem in annotated)
        return
    for split, file in request.places["lists"].items():
        for line in files.read(file).decode().splitlines():
            if line.strip():
                yield split, line.split()[0]


def load(example: Example, image: Image, request: Request) -> dict[str, Any]:
    """Boxes or classes of one image."""
    if request.dataset.task == "segmentation":
        return mask_folder.load(example, image, request)
    try:
        root = ElementTree.fromstring(files.read(example.more["mask"]))
    except UsageError:  # The store's failure, not the annotation's.
        raise
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise Rejected("annotation_malformed", f"the annotation cannot be read: {error}") from None
    stated = tuple((root.findtext(f"size/{side}") or "").strip() for side in ("height", "width"))
    if stated != ("", "") and stated != (str(image.height), str(image.width)):
        raise Rejected("image_size", f"the annotation says {stated[1]}x{stated[0]}, the file is {image.width}x{image.height}; correct the one or replace the other")
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
    name = (node.findtext("name") or "").strip()
    if name not in labels:
        raise Rejected("unknown_category", f"class {name!r} is not in dataset.labels; add it there, or remove the object")
    try:
        left, top, right, bottom = (float(node.findtext(f"bndbox/{side}") or "") for side in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        raise Rejected("box_malformed", "bndbox needs xmin, ymin, xmax and ymax, in pixels; correct it, or remove the object") from None
    # VOC counts pixels from 1 and includes the last one.
    box, clipped = sources.clipped([left - 1, top - 1, right - left + 1 if right > left else 0, bottom - top + 1 if bottom > top else 0], image.height, image.width)
    item = {
        "box": (box[0] / image.height, box[1] / image.width, box[2] / image.height, box[3] / image.width),
        "label": labels[name],
        "text": name,
        # As VOC's own evaluation does with what it calls difficult, COCO's leaves crowds out.
        "is_crowd": int((node.findtext("difficult") or "0").strip() == "1"),
        "area": (box[2] - box[0]) * (box[3] - box[1]),
    }
    return item, clipped
