"""Images and masks in two folders, paired by name: images/0001.jpg, masks/0001.png; a mask's pixel is a class.

With suffixes for layouts that name the two differently: a_leftImg8bit.png, a_gtFine_labelIds.png.
"""

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pipelines.config import Dataset
from pipelines.data import masks, sources
from pipelines.data.images import EXTENSIONS, NOT_AN_IMAGE, Image
from pipelines.data.sources import (
    Example,
    Folder,
    Listing,
    Reject,
    Rejected,
    Request,
    Tally,
)
from pipelines.usage import UsageError

TASKS = ("segmentation",)


def listing(request: Request) -> Listing:
    """Every pair; class names come from `dataset.labels`."""
    if set(request.places["images"]) != set(request.places["masks"]):
        raise UsageError(
            "dataset.images and dataset.masks name different splits; give both as one path or both with the same splits"
        )
    tally = Tally()
    return Listing(class_names(request), True, _items(request, tally), tally=tally)


def class_names(request: Request) -> tuple[str, ...]:
    """`dataset.labels`, which masks cannot do without.

    Raises:
        UsageError: there are none.
    """
    if not request.dataset.labels:
        raise UsageError(
            "dataset.labels: masks carry no names; write dataset.labels=[background,…] in the order of the classes"
        )
    return tuple(str(label) for label in request.dataset.labels)


def _items(request: Request, tally: Tally) -> Iterator[Example | Reject]:
    for given in request.places["images"]:
        images, painted = request.folder("images", given), request.folder("masks", given)
        yield from _paired(request.dataset, given, images, painted, tally)


def _paired(dataset: Dataset, given: str, images: Folder, drawn: Folder, tally: Tally) -> Iterator[Example | Reject]:
    """Pairs the images of a folder with the masks of another; whatever has no partner is rejected."""
    painted = sources.without_ballast((*drawn.digests, *drawn.unfit), tally)
    masks_by_stem = by_stem(painted, dataset.mask_suffix)
    doubles = [name for name in painted if masks_by_stem.get(_stem(name, dataset.mask_suffix) or "", name) != name]
    names = sources.without_ballast((*images.digests, *images.unfit), tally)
    stems = {name: _stem(name, dataset.image_suffix) or str(PurePosixPath(name).with_suffix("")) for name in names}
    lone = sorted(set(masks_by_stem) - set(stems.values()))
    tally.examples += len(names) + len(lone) + len(doubles)
    paired: set[str] = set()
    for name, stem in stems.items():
        split = sources.split_of(given, stem, dataset)
        mask = masks_by_stem.get(stem, "")
        refusal = _refusal(name, stem, mask, images, drawn) or (DUPLICATE if stem in paired else None)
        if refusal:
            yield Reject(split, name, stem, *refusal)
            continue
        paired.add(stem)
        content = sources.digest(images.digests[name], drawn.digests[mask])
        file, painted_file = f"{images.path}/{name}", f"{drawn.path}/{mask}"
        listed = {file: images.digests[name], painted_file: drawn.digests[mask]}
        yield Example(split, stem, file, name, content, {"mask": painted_file}, listed)
    for stem in lone:
        mask = masks_by_stem[stem]
        reason = drawn.unfit.get(mask) or ("no_image", "add the image to dataset.images, or remove the mask")
        yield Reject(sources.split_of(given, stem, dataset), mask, stem, *reason)
    for name in doubles:
        advice = "two masks have the name of one image; rename or remove one"
        yield Reject(sources.split_of(given, name, dataset), name, name, "mask_ambiguous", advice)


DUPLICATE = ("duplicate_key", "two images have the name of one mask; rename or remove one")


def by_stem(names: Iterable[str], suffix: str = "") -> dict[str, str]:
    """Names of masks by what they share with their image."""
    return {stem: name for name in names if (stem := _stem(name, suffix))}


def _stem(name: str, suffix: str) -> str | None:
    """What an image's and a mask's name have in common; None for a file that is neither."""
    stem = str(PurePosixPath(name).with_suffix(""))
    return stem.removesuffix(suffix) if stem.endswith(suffix) else None


def _refusal(name: str, stem: str, mask: str, images: Folder, drawn: Folder) -> tuple[str, str] | None:
    """Why an image cannot be taken with its mask."""
    if name in images.unfit:
        return images.unfit[name]
    if not name.lower().endswith(EXTENSIONS):
        return NOT_AN_IMAGE
    if mask in drawn.digests:
        return None
    return drawn.refusal(mask or stem) or ("no_mask", "add its mask to dataset.masks, or remove the image")


def load(example: Example, image: Image, request: Request) -> dict[str, Any]:
    """The mask of one image, its values mapped to classes, checked against the image and the classes."""
    try:
        classes = masks.read_classes(sources.read(example, example.more["mask"]))
    except OSError as error:
        raise Rejected("no_mask", f"the mask cannot be read: {error.strerror or error}") from None
    if classes.shape != (image.height, image.width):
        raise Rejected(
            "mask_size", f"the mask is {classes.shape[1]}x{classes.shape[0]}, the image {image.width}x{image.height}"
        )
    if request.dataset.remap:
        classes = _table(request.dataset.remap)[classes]
    return {"mask": masks.encode_classes(classes), "pixels": masks.pixels(classes, request.dataset.labels)}


def _table(remap: dict[Any, int]) -> np.ndarray:
    table = np.full(256, masks.IGNORED, np.uint8)
    for value, label in remap.items():
        table[int(value)] = label
    return table
