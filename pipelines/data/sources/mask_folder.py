"""Images and masks in two folders, paired by name: images/0001.jpg, masks/0001.png; a mask's pixel is a class.

With suffixes for layouts that name the two differently: a_leftImg8bit.png, a_gtFine_labelIds.png.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pipelines.data import files, masks, sources
from pipelines.data.images import EXTENSIONS, Image
from pipelines.data.sources import Example, Listing, Reject, Rejected, Request
from pipelines.usage import UsageError

TASKS = ("segmentation",)
IGNORED = 255


def listing(request: Request) -> Listing:
    """Every pair; class names come from `dataset.labels`."""
    if set(request.places["images"]) != set(request.places["masks"]):
        raise UsageError("dataset.images and dataset.masks name different splits; give both as one path or both with the same splits")
    return Listing(class_names(request), True, _items(request))


def class_names(request: Request) -> tuple[str, ...]:
    """`dataset.labels`, which masks cannot do without.

    Raises:
        UsageError: there are none.
    """
    if not request.dataset.labels:
        raise UsageError("dataset.labels: masks carry no names; write dataset.labels=[background,…] in the order of the classes")
    return tuple(str(label) for label in request.dataset.labels)


def _items(request: Request) -> Iterator[Example | Reject]:
    dataset = request.dataset
    for given, folder in request.places["images"].items():
        drawn = {stem: name for name in request.digests["masks"][given] if (stem := _stem(name, dataset.mask_suffix))}
        paired: set[str] = set()
        for name, content in request.digests["images"][given].items():
            stem = _stem(name, dataset.image_suffix) or str(PurePosixPath(name).with_suffix(""))
            split = sources.split_of(given, stem, dataset)
            code, advice = _unfit(name, stem, folder, drawn, paired)
            if code:
                yield Reject(split, name, stem, code, advice)
                continue
            paired.add(stem)
            more = {"mask": f"{request.places['masks'][given]}/{drawn[stem]}"}
            yield Example(split, stem, f"{folder}/{name}", name, sources.digest(content, request.digests["masks"][given][drawn[stem]]), more)
        for stem in sorted(set(drawn) - paired):
            if not any(_stem(name, dataset.image_suffix) == stem for name in request.digests["images"][given]):
                yield Reject(sources.split_of(given, stem, dataset), drawn[stem], stem, "no_image", "add the image to dataset.images, or remove the mask")


def _stem(name: str, suffix: str) -> str | None:
    """What an image's and a mask's name have in common; None for a file that is neither."""
    stem = str(PurePosixPath(name).with_suffix(""))
    return stem.removesuffix(suffix) if stem.endswith(suffix) else None


def _unfit(name: str, stem: str, folder: str, drawn: dict[str, str], paired: set[str]) -> tuple[str, str]:
    if not name.lower().endswith(EXTENSIONS):
        return "not_an_image", f"remove it, or convert it to one of {' '.join(EXTENSIONS)}"
    if sources.inside(folder, name) is None:
        return sources.ESCAPES
    if stem not in drawn:
        return "no_mask", "add its mask to dataset.masks, or remove the image"
    if stem in paired:
        return "duplicate_key", "two images have the name of one mask; rename or remove one"
    return "", ""


def load(example: Example, image: Image, request: Request) -> dict[str, Any]:
    """The mask of one image, its values mapped to classes, checked against the image and the classes."""
    try:
        classes = masks.read_classes(files.read(example.more["mask"]))
    except OSError as error:
        raise Rejected("no_mask", f"the mask cannot be read: {error.strerror or error}") from None
    if classes.shape != (image.height, image.width):
        raise Rejected("mask_size", f"the mask is {classes.shape[1]}x{classes.shape[0]}, the image {image.width}x{image.height}")
    if request.dataset.remap:
        classes = _table(request.dataset.remap)[classes]
    labels = request.dataset.labels
    counts = np.bincount(classes.ravel(), minlength=256)
    unknown = [int(value) for value in np.flatnonzero(counts) if value >= len(labels) and value != IGNORED]
    if unknown:
        raise Rejected("unknown_class", f"pixel values {unknown} are no classes; name them in dataset.labels, or map them with dataset.remap (255 is ignored)")
    pixels = {str(label): int(count) for label, count in zip(labels, counts, strict=False) if count}
    return {"mask": masks.encode_classes(classes), "pixels": pixels}


def _table(remap: dict[Any, int]) -> np.ndarray:
    table = np.full(256, IGNORED, np.uint8)
    for value, label in remap.items():
        table[int(value)] = label
    return table
