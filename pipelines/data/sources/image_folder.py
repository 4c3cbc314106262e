"""Images in one folder per class: cats/0001.jpg, dogs/0001.jpg."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.config import Dataset
from pipelines.data import sources
from pipelines.data.images import EXTENSIONS, NOT_AN_IMAGE, Image
from pipelines.usage import UsageError

TASKS = ("classification",)


def listing(request: sources.Request) -> sources.Listing:
    """Every image; the classes are the folders' names, sorted, unless `dataset.labels` names them."""
    folders = {given: request.folder("images", given) for given in request.places["images"]}
    labels = tuple(
        request.dataset.labels or sorted({label for folder in folders.values() for label in _classes(folder)})
    )
    if not labels:
        places = ", ".join(request.places["images"].values())
        raise UsageError(f"dataset.images: no class folders in {places}; expected <class>/<image>")
    labels = (*(["background"] if request.dataset.background else []), *(str(label) for label in labels))
    tally = sources.Tally()
    numbers = {label: number for number, label in enumerate(labels)}
    return sources.Listing(labels, False, _items(request, folders, numbers, tally), tally=tally)


def _classes(folder: sources.Folder) -> Iterator[str]:
    """Names of the class folders, and of links that cannot be followed and would be one: no class vanishes."""
    for name in folder.digests:
        if "/" in name and not sources.is_ballast(name):
            yield name.split("/")[0]
    for name in folder.unfit:
        if "/" in name or not (name.lower().endswith(EXTENSIONS) or sources.is_ballast(name)):
            yield name.split("/")[0]


def _items(
    request: sources.Request, folders: Mapping[str, sources.Folder], numbers: dict[str, int], tally: sources.Tally
) -> Iterator[sources.Example | sources.Reject]:
    for given, folder in folders.items():
        images = sources.without_ballast(folder.digests, tally)
        unfit = sources.without_ballast(folder.unfit, tally)
        tally.examples += len(images) + len(unfit)
        for name in unfit:
            split = sources.split_of(given, name, request.dataset)
            yield sources.Reject(split, name, name, *folder.unfit[name])
        for name in images:
            yield _item(request.dataset, given, name, folder, numbers)


def _item(
    dataset: Dataset, given: str, name: str, folder: sources.Folder, numbers: dict[str, int]
) -> sources.Example | sources.Reject:
    label = name.split("/")[0] if "/" in name else ""
    split = sources.split_of(given, name, dataset)
    if not name.lower().endswith(EXTENSIONS):
        return sources.Reject(split, name, name, *NOT_AN_IMAGE)
    if label not in numbers:
        advice = "move it into the folder of its class, or name the class in dataset.labels"
        return sources.Reject(split, name, name, "unknown_class", advice)
    content = sources.digest(folder.digests[name], label)
    file, more = f"{folder.path}/{name}", {"label": numbers[label], "text": label}
    return sources.Example(split, name, file, name, content, more, {file: folder.digests[name]})


def load(example: sources.Example, image: Image, request: sources.Request) -> dict[str, Any]:
    """The label of one image."""
    return {"label": example.more["label"], "text": example.more["text"]}
