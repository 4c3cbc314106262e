"""Images whose class is the first word of their names, as in cat_1.png: a source as one would add it.

In the tree it would be `pipelines/data/sources/first_word.py`, and nothing else would know of it.
"""

from collections.abc import Iterator

from pipelines.data import keys, lookup
from pipelines.data.example import Example, Loaded, Reject, Rejected
from pipelines.data.images import Image
from pipelines.data.listing import Facts, Listing, Request, Tally

FACTS = Facts(tasks=("classification",), required=("images", "labels"))


def listing(request: Request) -> Listing:
    """Every image, in the launching process: nothing is opened, names and digests are known."""
    tally = Tally()
    labels = tuple(request.dataset.labels)
    return Listing(labels, False, _items(request, tally), tally=tally)


def _items(request: Request, tally: Tally) -> Iterator[Example | Reject]:
    for given in request.places["images"]:
        folder = request.folder("images", given)
        # Unfit is what cannot be read; each of those is a reject, not a line of a log.
        for name in folder.unfit:
            tally.examples += 1
            yield Reject(given or "train", name, name, *folder.unfit[name])
        for name in lookup.without_ballast(folder.digests, tally):
            tally.examples += 1
            file = f"{folder.path}/{name}"
            yield Example(
                split=keys.chosen_split(given, name, request.dataset),
                key=name,
                file=file,
                name=name,
                content=folder.digests[name],
                own=name.partition("_")[0],
                files={file: folder.digests[name]},
            )


def load(example: Example, image: Image, request: Request) -> Loaded:
    """The class of one image, on a worker."""
    labels = list(request.dataset.labels)
    if example.own not in labels:
        raise Rejected("unknown_class", "name its class in dataset.labels, or remove the image")
    return Loaded({"label": labels.index(example.own), "text": example.own})
