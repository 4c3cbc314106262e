"""Pictures and labels in IDX files, as MNIST and Fashion-MNIST are published; packed by gzip or not.

The format is that of http://yann.lecun.com/exdb/mnist: two zero bytes, the type (8: unsigned bytes), the number of
dimensions, each dimension in four bytes, most significant first, then the values.
"""

import functools
import gzip
import hashlib
import posixpath
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipelines.data import files, keys, lookup
from pipelines.data.example import Example, Loaded, Reject
from pipelines.data.images import Image
from pipelines.data.listing import Facts, Listing, Request, Tally
from pipelines.data.masks import encode_classes
from pipelines.usage import UsageError

FACTS = Facts(
    tasks=("classification",),
    required=("images", "annotations", "labels"),
    pixels=True,
)
GZIP = b"\x1f\x8b"
BYTES = 8  # the type of values, and the only one that pictures and labels are published in
IMAGE_AXES, LABEL_AXES = 3, 1


def listing(request: Request) -> Listing:
    """Every picture, under its number in the file."""
    labels = tuple(str(label) for label in request.dataset.labels)
    digests = lookup.files_of(request, "images")
    _check_contents(request)
    tally = Tally()
    items = _items(request, digests, labels, tally)
    return Listing(labels, False, items, tally=tally)


def _items(
    request: Request, digests: Mapping[str, str], labels: tuple[str, ...], tally: Tally
) -> Iterator[Example | Reject]:
    for given, file in request.places["images"].items():
        pictures = _values(file, IMAGE_AXES)
        labels_file = request.places["annotations"][given]
        numbers = _values(labels_file, LABEL_AXES)
        if len(pictures) != len(numbers):
            raise UsageError(
                f"dataset.annotations: {labels_file} has {len(numbers)} labels, "
                f"{file} has {len(pictures)} pictures; give the labels of these pictures"
            )
        tally.examples += len(pictures)
        for place, number in enumerate(numbers.tolist()):
            key = f"{place:06d}"
            split = keys.chosen_split(given, key, request.dataset)
            if number >= len(labels):
                advice = f"label {number} has no name in dataset.labels"
                name = posixpath.basename(file)
                yield Reject(split, name, key, "unknown_class", advice)
                continue
            pixels = hashlib.sha256(pictures[place]).hexdigest()
            yield Example(
                split=split,
                key=key,
                file=file,
                name=key,
                content=keys.joint_digest(pixels, labels[number]),
                own={"place": place, "label": number, "sha256": digests[given]},
            )


def _check_contents(request: Request) -> None:
    """Refuses files that are not those which the data set is published as.

    Raises:
        UsageError: naming the file, and where the right one comes from.
    """
    lookup.files_of(request, "annotations")
    images, annotations = request.places["images"], request.places["annotations"]
    if images.keys() != annotations.keys():
        raise UsageError(
            f"dataset.annotations has {', '.join(annotations)}, dataset.images has "
            f"{', '.join(images)}; give both the same splits"
        )
    for field, by_split in (request.dataset.contents or {}).items():
        for split, sha256 in by_split.items():
            file = request.places[field][split]
            if hashlib.sha256(_unpacked(file)).hexdigest() != sha256:
                origin = request.dataset.origin
                raise UsageError(
                    f"dataset.{field}: {file} is not the published file: its content has another "
                    f"SHA-256 than dataset.contents.{field}.{split}; it comes from {origin}"
                )


@functools.lru_cache(maxsize=2)
def _pictures(file: str, sha256: str) -> np.ndarray:
    """A worker's pictures, as they were when they were listed.

    Raises:
        UsageError: the file holds something else by now.
    """
    if hashlib.sha256(files.read(file)).hexdigest() != sha256:
        advice = "run the same command again when nothing writes to it any more"
        raise UsageError(f"{file}: {lookup.CHANGED}; {advice}")
    return _values(file, IMAGE_AXES)


def _values(file: str, axes: int) -> np.ndarray:
    """What an IDX file holds.

    Raises:
        UsageError: it is none, or its values are no bytes in so many dimensions.
    """
    content = _unpacked(file)
    start = 4 + 4 * axes
    if len(content) < start or content[:4] != bytes((0, 0, BYTES, axes)):
        what = "pictures" if axes == IMAGE_AXES else "labels"
        raise UsageError(f"{file}: not an IDX file of {what} ({axes} dimensions of bytes)")
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) - start != int(np.prod(shape, dtype=np.int64)):
        stated = "x".join(map(str, shape))
        raise UsageError(f"{file}: {len(content) - start} values where it states {stated}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _unpacked(file: str) -> bytes:
    content = files.read(file)
    if not content.startswith(GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{file}: damaged gzip: {error}; fetch it again") from None


def content(example: Example, request: Request) -> bytes:
    """One picture as a grey PNG."""
    own: dict[str, Any] = example.own
    return encode_classes(_pictures(example.file, own["sha256"])[own["place"]])


def load(example: Example, image: Image, request: Request) -> Loaded:
    """The label of one picture."""
    number = example.own["label"]
    return Loaded({"label": number, "text": str(request.dataset.labels[number])})
