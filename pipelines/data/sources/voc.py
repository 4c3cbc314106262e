"""Pascal VOC: XML boxes, or the masks of its segmentation split, for the images that a list file names."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from xml.etree import ElementTree

from pipelines.data import boxes, files, keys, lookup
from pipelines.data.example import Example, Folder, Loaded, Reason, Reject, Rejected, of_pair
from pipelines.data.images import EXTENSIONS, Image
from pipelines.data.listing import Facts, Listing, Request, Tally
from pipelines.data.sources import mask_folder
from pipelines.outside import quoted
from pipelines.usage import UsageError

FACTS = Facts(
    tasks=("detection", "segmentation"),
    required=("images",),
    optional=("annotations", "masks", "lists"),
)
# What a broken annotation raises; the last for an encoding that Python has not.
UNREADABLE = (ElementTree.ParseError, OSError, ValueError, LookupError)


def listing(request: Request) -> Listing:
    """Every image named by `dataset.lists`, or every annotation where there are no lists."""
    field = "annotations" if request.dataset.task == "detection" else "masks"
    if field not in request.places:
        raise UsageError(f"dataset.{field}: {request.dataset.task} from VOC needs it")
    tally = Tally()
    items = _items(request, field, tally)
    if request.dataset.task == "segmentation":
        return Listing(
            mask_folder.class_names(request),
            True,
            items,
            tally=tally,
        )
    labels = tuple(str(label) for label in request.dataset.labels or _names(request))
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    return Listing(
        labels,
        False,
        items,
        {"labels": numbers},
        tally,
    )


def _names(request: Request) -> list[str]:
    """Class names that occur in the annotations, sorted."""
    names: set[str] = set()
    for given in request.places["annotations"]:
        folder = request.folder("annotations", given)
        for file, sha256 in folder.digests.items():
            try:
                root = _annotation(f"{folder.path}/{file}", sha256)
                names.update(_name(node) for node in root.iter("object"))
            except UsageError:
                raise
            except UNREADABLE:
                continue  # Rejected, with its reason, where its image is loaded.
    return sorted(names - {""})


def _name(node: ElementTree.Element) -> str:
    return (node.findtext("name") or "").strip()


def _items(
    request: Request,
    field: str,
    tally: Tally,
) -> Iterator[Example | Reject]:
    for given in request.places.get("lists") or request.places[field]:
        images = lookup.folder_of(request, "images", given)
        annotations = lookup.folder_of(request, field, given)
        images_by_stem = _images_by_stem(images)
        annotations_by_stem = mask_folder.by_stem(_annotation_names(annotations))
        is_listed = "lists" in request.places
        stems = _listed(request, given) if is_listed else list(annotations_by_stem)
        tally.examples += len(stems)
        for stem in stems:
            split = keys.chosen_split(given, stem, request.dataset)
            names = images_by_stem.get(stem, [])
            annotation = annotations_by_stem.get(stem, "")
            refusal = _image_refusal(stem, names, images)
            if refusal is None:
                refusal = _annotation_refusal(stem, annotation, annotations, field)
            if refusal is None:
                yield of_pair(split, stem, images, names[0], annotations, annotation, "annotation")
                continue
            lost = 0
            if field == "annotations":
                lost = _objects_in(annotations, annotation)
            yield Reject(
                split,
                names[0] if names else stem,
                stem,
                *refusal,
                objects=lost,
            )


def _listed(request: Request, given: str) -> list[str]:
    """The first word of every line of a list: the image's name without its ending."""
    lookup.files_of(request, "lists")
    file = request.places["lists"][given]
    try:
        lines = files.read(file).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: not a list in UTF-8: {error}") from None
    return [line.split()[0] for line in lines if line.strip()]


def _images_by_stem(images: Folder) -> dict[str, list[str]]:
    """Names of images by what comes before their ending."""
    by_stem: dict[str, list[str]] = {}
    for name in (*images.digests, *images.unfit):
        if name in images.unfit or name.lower().endswith(EXTENSIONS):
            stem = str(PurePosixPath(name).with_suffix(""))
            by_stem.setdefault(stem, []).append(name)
    return by_stem


def _annotation_names(folder: Folder) -> list[str]:
    """Names in a folder of annotations or masks, without what lies beside them."""
    names: list[str] = []
    for name in (*folder.digests, *folder.unfit):
        if name.endswith(".xml") or not lookup.is_ballast(name):
            names.append(name)
    return names


def _image_refusal(
    stem: str,
    names: list[str],
    images: Folder,
) -> Reason | None:
    """Why there is no image of a name; `names` are those of its files."""
    if len(names) > 1:
        says = f"several images have this name: {', '.join(names)}"
        return "image_ambiguous", f"{says}; rename or remove all but one"
    if names and names[0] not in images.unfit:
        return None
    refusal = images.refusal(names[0] if names else stem)
    advice = "add the image to dataset.images, or take it off the list"
    return refusal or ("image_missing", advice)


def _annotation_refusal(
    stem: str,
    name: str,
    folder: Folder,
    field: str,
) -> Reason | None:
    """Why there is no annotation or mask of a name."""
    if name in folder.digests:
        return None
    advice = f"add it to dataset.{field}, or take the image off the list"
    return folder.refusal(name or stem) or (f"no_{field.rstrip('s')}", advice)


@functools.lru_cache(maxsize=2)
def _annotation(file: str, content: str) -> ElementTree.Element:
    """The root of an annotation.

    `content` is a digest over what it is read for, so that none is kept too long.
    """
    return ElementTree.fromstring(files.read(file))


def _objects_in(folder: Folder, name: str) -> int:
    """How many objects an annotation has; none where it is absent."""
    if name not in folder.digests:
        return 0
    return _count(f"{folder.path}/{name}", folder.digests[name])


def _count(file: str, content: str) -> int:
    try:
        return len(list(_annotation(file, content).iter("object")))
    except UsageError:
        raise
    except UNREADABLE:
        return 0  # Rejected, with its reason, as a whole.


def objects(example: Example, request: Request) -> int:
    """How many objects the annotation of an image has."""
    if request.dataset.task != "detection":
        return 0
    return _count(example.own["annotation"], example.content)


def load(example: Example, image: Image, request: Request) -> Loaded:
    """Boxes or classes of one image."""
    file = example.own["annotation"]
    if request.dataset.task == "segmentation":
        return mask_folder.load_mask(example, file, image, request.dataset)
    try:
        root = ElementTree.fromstring(lookup.read(example, file))
    except UsageError:  # The store's failure, not the annotation's.
        raise
    except UNREADABLE as error:
        says = f"the annotation cannot be read: {error}"
        raise Rejected("annotation_malformed", says) from None
    _check_size(root, image)
    loaded = Loaded({"objects": []})
    for number, node in enumerate(root.iter("object"), start=1):
        try:
            item, clipped = _object(node, image, request.shared["labels"])
        except Rejected as rejected:
            loaded.rejects.append((f"object {number}", rejected))
            continue
        loaded.record["objects"].append(item)
        loaded.clipped += clipped
    return loaded


def _check_size(root: ElementTree.Element, image: Image) -> None:
    """Refuses an image that has another size than its annotation says."""
    height = (root.findtext("size/height") or "").strip()
    width = (root.findtext("size/width") or "").strip()
    if (height, width) in (("", ""), (str(image.height), str(image.width))):
        return
    says = f"the annotation says {width}x{height}, the file is {image.width}x{image.height}"
    raise Rejected("image_size", f"{says}; correct the one or replace the other")


def _object(
    node: ElementTree.Element, image: Image, labels: Mapping[str, int]
) -> tuple[dict[str, Any], bool]:
    name = _name(node)
    if name not in labels:
        says = f"class {quoted(name)} is not in dataset.labels"
        raise Rejected("unknown_category", f"{says}; add it there, or remove the object")
    box, clipped = boxes.clipped(
        _stated_box(node),
        image.height,
        image.width,
    )
    # VOC's own evaluation leaves out what it calls difficult, as COCO's does with crowds.
    difficult = (node.findtext("difficult") or "0").strip()
    item = {
        "box": box.fractions(image.height, image.width),
        "label": labels[name],
        "text": name,
        "is_crowd": int(difficult == "1"),
        "area": box.area(),
    }
    return item, clipped


def _stated_box(node: ElementTree.Element) -> list[float]:
    """The box of an object as [x, y, width, height]."""
    sides: list[float] = []
    for side in ("xmin", "ymin", "xmax", "ymax"):
        try:
            sides.append(float(node.findtext(f"bndbox/{side}") or ""))
        except ValueError:
            says = "bndbox needs xmin, ymin, xmax and ymax, in pixels"
            advice = f"{says}; correct it, or remove the object"
            raise Rejected("box_malformed", advice) from None
    left, top, right, bottom = sides
    # VOC counts pixels from 1 and includes the last one: where the two are equal, the box is one
    # pixel wide.
    width = right - left + 1 if right >= left else 0
    height = bottom - top + 1 if bottom >= top else 0
    return [left - 1, top - 1, width, height]
