"""Repeated examples: those of a rare class come several times into the training split, where a loss has no weights of classes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pipelines.config import Dataset
from pipelines.data.example import Example, Reject
from pipelines.data.listing import Listing
from pipelines.usage import UsageError, nearest

TRAIN = "train"  # What is held against a model is never repeated.


def listed(listing: Listing, dataset: Dataset) -> Listing:
    """The listing with the training examples of each class as often as `dataset.repeat` says.

    Raises:
        UsageError: no such class, no whole number, or the data set has no classes of pictures.
    """
    times = dataset.repeat
    if not times:
        return listing
    _check(times, dataset, listing.labels)
    items = _items(listing, times)
    return replace(listing, items=items)


def _items(listing: Listing, times: Mapping[str, int]) -> Iterator[Example | Reject]:
    for item in listing.items:
        yield item
        if isinstance(item, Reject) or item.split != TRAIN:
            continue
        label = item.own["text"]
        for number in range(2, times.get(label, 1) + 1):
            listing.tally.examples += 1
            yield replace(item, key=f"{item.key}#{number}")


def _check(times: Any, dataset: Dataset, labels: Iterable[str]) -> None:
    if dataset.source not in ("csv", "elpv", "image_folder"):
        raise UsageError(
            f"dataset.repeat: the source {dataset.source} repeats nothing; csv, elpv and image_folder do"
        )
    if not isinstance(times, Mapping):
        raise UsageError(f"dataset.repeat: {times!r}; write dataset.repeat={{<class>:<times>}}")
    known = list(labels)
    for label, count in times.items():
        if label not in known:
            raise UsageError(f"dataset.repeat: no class {label!r}{nearest(str(label), known)}")
        if not isinstance(count, int) or count < 1:
            raise UsageError(f"dataset.repeat: {label}: {count!r}; a whole number from 1 on")
