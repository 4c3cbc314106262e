"""Images and masks in two folders, paired by name: images/0001.jpg, masks/0001.png; a mask's pixel is a class."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pipelines.config import UsageError
from pipelines.data import masks, sources
from pipelines.data.images import EXTENSIONS, Image

TASKS = ("segmentation",)
IGNORED = 255


def listing(request: sources.Request) -> sources.Listing:
    """Every pair; class names come from `dataset.labels`."""
    if set(request.places["images"]) != set(request.places["masks"]):
        raise UsageError("dataset.images and dataset.masks name different splits; give both as one path or both with the same splits")
    if not request.dataset.labels:
        raise UsageError("dataset.labels: masks carry no names; write dataset.labels=[background,…] in the order of the pixel values")
    return sources.Listing(tuple(str(label) for label in request.dataset.labels), True, _items(request))


def _items(request: sources.Request) -> Iterator[sources.Example | sources.Reject]:
    for given, folder in request.places["images"].items():
        images, drawn = request.digests["images"][given], request.digests["masks"][given]
        by_stem = {_stem(name): name for name in drawn}
        paired = set()
        for name, content in images.items():
            split = sources.split_of(given, _stem(name), request.dataset)
            mask = by_stem.get(_stem(name))
            if not name.lower().endswith(EXTENSIONS):
                yield sources.Reject(split, name, name, "not_an_image", f"remove it, or convert it to one of {' '.join(EXTENSIONS)}")
            elif mask is None:
                yield sources.Reject(split, name, name, "no_mask", f"add the mask {_stem(name)}.png to dataset.masks, or remove the image")
            elif _stem(name) in paired:
                yield sources.Reject(split, name, name, "duplicate_key", "two images have the name of one mask; rename or remove one")
            else:
                paired.add(_stem(name))
                more = {"mask": f"{request.places['masks'][given]}/{mask}"}
                yield sources.Example(split, _stem(name), f"{folder}/{name}", name, sources.digest(content, drawn[mask]), more)
        for stem in sorted(set(by_stem) - {_stem(name) for name in images}):
            yield sources.Reject(sources.split_of(given, stem, request.dataset), by_stem[stem], stem, "no_image", "add the image to dataset.images, or remove the mask")


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def load(example: sources.Example, image: Image, request: sources.Request) -> dict[str, Any]:
    """The mask of one image, checked against the image and the classes."""
    with open(example.more["mask"], "rb") as file:
        content = file.read()
    classes = masks.read_classes(content)
    if classes.shape != (image.height, image.width):
        raise sources.Rejected("mask_size", f"the mask is {classes.shape[1]}x{classes.shape[0]}, the image {image.width}x{image.height}")
    counts = np.bincount(classes.ravel(), minlength=256)
    unknown = [int(value) for value in np.flatnonzero(counts) if value >= len(request.dataset.labels) and value != IGNORED]
    if unknown:
        raise sources.Rejected("unknown_class", f"pixel values {unknown} have no name in dataset.labels; 255 is left out of training")
    pixels = {label: int(count) for label, count in zip(request.dataset.labels, counts, strict=False) if count}
    return {"mask": masks.as_png(content, classes), "pixels": pixels}
