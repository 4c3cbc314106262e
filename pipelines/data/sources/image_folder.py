"""Images in one folder per class: cats/0001.jpg, dogs/0001.jpg."""

from collections.abc import Iterable, Iterator, Mapping

from pipelines.config import Dataset
from pipelines.data import keys, lookup
from pipelines.data.example import Example, Folder, Loaded, Reject, of_class
from pipelines.data.images import EXTENSIONS, NOT_AN_IMAGE, Image
from pipelines.data.listing import Facts, Listing, Request, Tally
from pipelines.usage import UsageError

FACTS = Facts(tasks=("classification",), required=("images",))


def listing(request: Request) -> Listing:
    """Every image; the classes are the folders' names, sorted, unless `dataset.labels` names them."""
    folders = {given: request.folder("images", given) for given in request.places["images"]}
    classes = request.dataset.labels or _classes(folders.values())
    if not classes:
        paths = ", ".join(request.places["images"].values())
        raise UsageError(f"dataset.images: no class folders in {paths}; expected <class>/<image>")
    labels = [str(label) for label in classes]
    if request.dataset.background:
        labels.insert(0, "background")
    numbers = {label: number for number, label in enumerate(labels)}
    tally = Tally()
    items = _items(
        request.dataset,
        folders,
        numbers,
        tally,
    )
    return Listing(
        tuple(labels),
        False,
        items,
        tally=tally,
    )


def _classes(folders: Iterable[Folder]) -> list[str]:
    """Names of the class folders, sorted.

    A link that cannot be followed and would be a class folder counts as one: no class vanishes.
    """
    classes: set[str] = set()
    for folder in folders:
        for name in folder.digests:
            if "/" in name and not lookup.is_ballast(name):
                classes.add(name.split("/")[0])
        for name in folder.unfit:
            if "/" in name or not _is_file(name):
                classes.add(name.split("/")[0])
    return sorted(classes)


def _is_file(name: str) -> bool:
    """Whether a name looks like that of a file, rather than that of a folder."""
    return name.lower().endswith(EXTENSIONS) or lookup.is_ballast(name)


def _items(
    dataset: Dataset,
    folders: Mapping[str, Folder],
    numbers: Mapping[str, int],
    tally: Tally,
) -> Iterator[Example | Reject]:
    for given, folder in folders.items():
        images = lookup.without_ballast(folder.digests, tally)
        unfit = lookup.without_ballast(folder.unfit, tally)
        tally.examples += len(images) + len(unfit)
        for name in unfit:
            split = keys.chosen_split(given, name, dataset)
            yield Reject(split, name, name, *folder.unfit[name])
        for name in images:
            split = keys.chosen_split(given, name, dataset)
            yield _item(split, name, folder, numbers)


def _item(
    split: str,
    name: str,
    folder: Folder,
    numbers: Mapping[str, int],
) -> Example | Reject:
    label = name.split("/")[0] if "/" in name else ""
    if not name.lower().endswith(EXTENSIONS):
        return Reject(split, name, name, *NOT_AN_IMAGE)
    if label not in numbers:
        advice = "move it into the folder of its class, or name the class in dataset.labels"
        return Reject(split, name, name, "unknown_class", advice)
    file = f"{folder.path}/{name}"
    sha256 = folder.digests[name]
    return of_class(split, name, file, sha256, label, numbers)


def load(example: Example, image: Image, request: Request) -> Loaded:
    """The label of one image."""
    return Loaded({"label": example.own["label"], "text": example.own["text"]})
