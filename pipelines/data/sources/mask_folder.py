"""Images and masks in two folders, paired by name: images/0001.jpg, masks/0001.png; a mask's pixel is a class.

With suffixes for layouts that name the two differently: a_leftImg8bit.png, a_gtFine_labelIds.png.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pipelines.config import Dataset
from pipelines.data import keys, lookup, masks
from pipelines.data.example import Example, Folder, Loaded, Reason, Reject, Rejected, of_pair
from pipelines.data.images import EXTENSIONS, NOT_AN_IMAGE, Image
from pipelines.data.listing import Facts, Listing, Request, Tally
from pipelines.usage import UsageError

FACTS = Facts(tasks=("segmentation",), required=("images", "masks"))
DUPLICATE = ("duplicate_key", "two images have the name of one mask; rename or remove one")
NO_MASK = ("no_mask", "add its mask to dataset.masks, or remove the image")
NO_IMAGE = ("no_image", "add the image to dataset.images, or remove the mask")
AMBIGUOUS = ("mask_ambiguous", "two masks have the name of one image; rename or remove one")


def listing(request: Request) -> Listing:
    """Every pair; class names come from `dataset.labels`."""
    if set(request.places["images"]) != set(request.places["masks"]):
        raise UsageError(
            "dataset.images and dataset.masks name different splits; "
            "give both as one path or both with the same splits"
        )
    tally = Tally()
    return Listing(
        class_names(request),
        True,
        _items(request, tally),
        tally=tally,
    )


def class_names(request: Request) -> tuple[str, ...]:
    """`dataset.labels`, which masks cannot do without.

    Raises:
        UsageError: there are none.
    """
    if not request.dataset.labels:
        raise UsageError(
            "dataset.labels: masks carry no names; "
            "write dataset.labels=[background,…] in the order of the classes"
        )
    return tuple(str(label) for label in request.dataset.labels)


def _items(request: Request, tally: Tally) -> Iterator[Example | Reject]:
    for given in request.places["images"]:
        images = request.folder("images", given)
        painted = request.folder("masks", given)
        yield from _paired(
            request.dataset,
            given,
            images,
            painted,
            tally,
        )


def _paired(
    dataset: Dataset,
    given: str,
    images: Folder,
    painted: Folder,
    tally: Tally,
) -> Iterator[Example | Reject]:
    """Pairs the images of a folder with the masks of another; what has no partner is rejected."""
    mask_names = lookup.without_ballast((*painted.digests, *painted.unfit), tally)
    masks_by_stem = by_stem(mask_names, dataset.mask_suffix)
    image_names = lookup.without_ballast((*images.digests, *images.unfit), tally)
    stems = {name: _image_stem(name, dataset.image_suffix) for name in image_names}
    lone = sorted(set(masks_by_stem) - set(stems.values()))
    doubles = _doubles(mask_names, masks_by_stem, dataset.mask_suffix)
    tally.examples += len(image_names) + len(lone) + len(doubles)
    paired: set[str] = set()
    for name, stem in stems.items():
        split = keys.chosen_split(given, stem, dataset)
        mask = masks_by_stem.get(stem, "")
        refusal = _refusal(name, stem, mask, images, painted)
        if refusal is None and stem in paired:
            refusal = DUPLICATE
        if refusal:
            yield Reject(split, name, stem, *refusal)
            continue
        paired.add(stem)
        yield of_pair(
            split,
            stem,
            images,
            name,
            painted,
            mask,
            "mask",
        )
    for stem in lone:
        mask = masks_by_stem[stem]
        reason = painted.unfit.get(mask, NO_IMAGE)
        yield Reject(keys.chosen_split(given, stem, dataset), mask, stem, *reason)
    for name in doubles:
        yield Reject(keys.chosen_split(given, name, dataset), name, name, *AMBIGUOUS)


def _doubles(
    names: Iterable[str],
    by_stem: Mapping[str, str],
    suffix: str,
) -> list[str]:
    """Names of masks whose image has another mask."""
    doubles: list[str] = []
    for name in names:
        stem = _stem(name, suffix)
        if stem and by_stem[stem] != name:
            doubles.append(name)
    return doubles


def by_stem(names: Iterable[str], suffix: str = "") -> dict[str, str]:
    """Names of masks by what they share with their image."""
    masks_by_stem: dict[str, str] = {}
    for name in names:
        if stem := _stem(name, suffix):
            masks_by_stem[stem] = name
    return masks_by_stem


def _stem(name: str, suffix: str) -> str | None:
    """What an image's and a mask's name have in common; None for a file that is neither."""
    stem = str(PurePosixPath(name).with_suffix(""))
    return stem.removesuffix(suffix) if stem.endswith(suffix) else None


def _image_stem(name: str, suffix: str) -> str:
    return _stem(name, suffix) or str(PurePosixPath(name).with_suffix(""))


def _refusal(
    name: str,
    stem: str,
    mask: str,
    images: Folder,
    painted: Folder,
) -> Reason | None:
    """Why an image cannot be taken with its mask."""
    if name in images.unfit:
        return images.unfit[name]
    if not name.lower().endswith(EXTENSIONS):
        return NOT_AN_IMAGE
    if mask in painted.digests:
        return None
    return painted.refusal(mask or stem) or NO_MASK


def load(example: Example, image: Image, request: Request) -> Loaded:
    """The mask of one image."""
    return load_mask(
        example,
        example.own["mask"],
        image,
        request.dataset,
    )


def load_mask(
    example: Example,
    file: str,
    image: Image,
    dataset: Dataset,
) -> Loaded:
    """A mask, its values mapped to classes, checked against the image and the classes."""
    try:
        classes = masks.read_classes(lookup.read(example, file))
    except OSError as error:
        says = f"the mask cannot be read: {error.strerror or error}"
        raise Rejected("no_mask", says) from None
    masks.check_size(classes, image.height, image.width)
    if dataset.remap:
        classes = _table(dataset.remap)[classes]
    pixels = masks.pixels(classes, dataset.labels)
    return Loaded({"mask": masks.encode_classes(classes)}, pixels=pixels)


def _table(remap: Mapping[Any, int]) -> np.ndarray:
    table = np.full(256, masks.IGNORED, np.uint8)
    for value, label in remap.items():
        table[int(value)] = label
    return table
