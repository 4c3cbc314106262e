"""Images in one folder per class: cats/0001.jpg, dogs/0001.jpg."""

from collections.abc import Iterator
from typing import Any

from pipelines.data import sources
from pipelines.data.images import EXTENSIONS, Image
from pipelines.usage import UsageError

TASKS = ("classification",)


def listing(request: sources.Request) -> sources.Listing:
    """Every image; the classes are the folders' names, sorted, unless `dataset.labels` names them."""
    names = {name.split("/")[0] for files in request.digests["images"].values() for name in files if "/" in name}
    labels = tuple(request.dataset.labels or sorted(names))
    if not labels:
        raise UsageError(f"dataset.images: no class folders in {', '.join(request.places['images'].values())}; expected <class>/<image>")
    labels = (*(["background"] if request.dataset.background else []), *(str(label) for label in labels))
    return sources.Listing(labels, False, _items(request, {label: number for number, label in enumerate(labels)}))


def _items(request: sources.Request, numbers: dict[str, int]) -> Iterator[sources.Example | sources.Reject]:
    for given, folder in request.places["images"].items():
        for name, content in request.digests["images"][given].items():
            label = name.split("/")[0] if "/" in name else ""
            split = sources.split_of(given, name, request.dataset)
            if not name.lower().endswith(EXTENSIONS):
                yield sources.Reject(split, name, name, "not_an_image", f"remove it, or convert it to one of {' '.join(EXTENSIONS)}")
            elif sources.inside(folder, name) is None:
                yield sources.Reject(split, name, name, *sources.ESCAPES)
            elif label not in numbers:
                yield sources.Reject(split, name, name, "unknown_class", "move it into the folder of its class, or name the class in dataset.labels")
            else:
                yield sources.Example(split, name, f"{folder}/{name}", name, sources.digest(content, label), {"label": numbers[label], "text": label})


def load(example: sources.Example, image: Image, request: sources.Request) -> dict[str, Any]:
    """The label of one image."""
    return {"label": example.more["label"], "text": example.more["text"]}
