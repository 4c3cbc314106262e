"""Photographs of solar cells, as the package elpv-dataset holds them: a table of paths, probabilities of a defect and cell types.

Its lines have blanks between the columns and no header: `images/cell0001.png  1.0                 mono`.
"""

import posixpath
from collections.abc import Iterator, Sequence

from pipelines.data import files, keys, lookup
from pipelines.data.example import Example, Loaded, Reject, Rejected, of_class
from pipelines.data.images import Image
from pipelines.data.listing import Facts, Listing, Request, Tally
from pipelines.usage import UsageError

FACTS = Facts(tasks=("classification",), required=("images", "annotations", "labels"))
CERTAIN = 0.5  # The probability above which a cell counts as defective.

Row = tuple[str, float]  # an image's name, and the probability that its cell is defective


def listing(request: Request) -> Listing:
    """Every row; of the two labels the second is that of a defective cell."""
    labels = tuple(str(label) for label in request.dataset.labels)
    if len(labels) != 2:
        raise UsageError("dataset.labels: give two, of a sound cell and of a defective one")
    lookup.files_of(request, "annotations")
    tables = {given: _rows(file) for given, file in request.places["annotations"].items()}
    tally = Tally(examples=sum(map(len, tables.values())))
    return Listing(labels, False, _items(request, tables, labels), tally=tally)


def _rows(file: str) -> list[Row]:
    rows = []
    text = files.read(file).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        try:
            name, probability, _ = words
            rows.append((posixpath.basename(name), float(probability)))
        except ValueError:
            raise UsageError(
                f"{file}: line {number} is not a path, a probability and a type of cell; "
                "dataset.annotations names labels.csv of the package elpv-dataset"
            ) from None
    return rows


def _items(
    request: Request, tables: dict[str, list[Row]], labels: Sequence[str]
) -> Iterator[Example | Reject]:
    numbers = {label: number for number, label in enumerate(labels)}
    for given, rows in tables.items():
        folders = lookup.folders_of(request, "images", given)
        for name, probability in rows:
            split = keys.chosen_split(given, name, request.dataset)
            label = labels[probability > CERTAIN]
            try:
                file, sha256 = lookup.find(name, folders)
            except Rejected as rejected:
                yield Reject(split, name, name, rejected.code, rejected.advice)
                continue
            yield of_class(split, name, file, sha256, label, numbers)


def load(example: Example, image: Image, request: Request) -> Loaded:
    """The label of one cell."""
    return Loaded({"label": example.own["label"], "text": example.own["text"]})
