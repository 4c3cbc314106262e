"""A table of images: one row each, with columns for path, label and, if wanted, split and group."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from pipelines.data import files, sources
from pipelines.data.content import ALL
from pipelines.data.images import Image
from pipelines.data.sources import Example, Listing, Reject, Rejected, Request
from pipelines.usage import UsageError

TASKS = ("classification",)
COLUMNS = {"path": "path", "label": "label", "split": None, "group": None}
ALIASES = {"val": "validation", "valid": "validation", "dev": "validation", "training": "train"}


def listing(request: Request) -> Listing:
    """Every row; the classes are the labels that occur, sorted, unless `dataset.labels` names them."""
    columns = {**COLUMNS, **(request.dataset.columns or {})}
    unknown = set(columns) - set(COLUMNS)
    if unknown:
        raise UsageError(f"dataset.columns: no column {', '.join(sorted(unknown))}; there are: {', '.join(COLUMNS)}")
    tables = {given: _rows(file, columns) for given, file in request.places["annotations"].items()}
    labels = request.dataset.labels or sorted({row[columns["label"]] for rows in tables.values() for row in rows if row[columns["label"]]})
    labels = tuple(str(label) for label in labels)
    return Listing(labels, False, _items(request, tables, columns, {label: number for number, label in enumerate(labels)}))


def _rows(file: str, columns: dict[str, str | None]) -> list[dict[str, str]]:
    try:
        reader = csv.DictReader(io.StringIO(files.read(file).decode("utf-8-sig"), newline=""))
        rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not a table in UTF-8: {error}") from None
    for use, name in columns.items():
        if name and name not in (reader.fieldnames or ()):
            raise UsageError(f"{file}: no column {name!r} for {use}; the columns are {', '.join(reader.fieldnames or ())}; name it: dataset.columns.{use}=<column>")
    return rows


def _items(request: Request, tables: dict[str, list[dict[str, str]]], columns: dict[str, Any], numbers: dict[str, int]) -> Iterator[Example | Reject]:
    for given, rows in tables.items():
        folders = sources.folders_of(request, "images", given)
        for number, row in enumerate(rows, start=2):
            name, label = (row[columns["path"]] or "").strip(), (row[columns["label"]] or "").strip()
            split = _split(given, row, columns, name, request)
            try:
                if not name:
                    raise Rejected("path_empty", "write the image's path, relative to dataset.images, or remove the row")
                file, sha256 = sources.find(name, folders)
                if label not in numbers:
                    raise Rejected("unknown_class", f"label {label!r} is not in dataset.labels")
                yield Example(split, name, file, name, sources.digest(sha256, label), {"label": numbers[label], "text": label})
            except Rejected as rejected:
                yield Reject(split, name, f"line {number}", rejected.code, rejected.advice)


def _split(given: str, row: dict[str, str], columns: dict[str, Any], name: str, request: Request) -> str:
    """The table's own, the row's, or one by a hash of the row's group, else of its path."""
    stated = (row[columns["split"]] or "").strip().lower() if columns["split"] and given == ALL else ""
    key = row[columns["group"]] if columns["group"] else name
    return ALIASES.get(stated, stated) or sources.split_of(given, key, request.dataset)


def load(example: Example, image: Image, request: Request) -> dict[str, Any]:
    """The label of one image."""
    return {"label": example.more["label"], "text": example.more["text"]}
