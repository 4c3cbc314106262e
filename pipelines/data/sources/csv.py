"""A table of images: one row each, with columns for path, label and, if wanted, split and group."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.data import files, sources
from pipelines.data.content import ALL, SPLITS
from pipelines.data.images import Image
from pipelines.data.sources import (
    Example,
    Folder,
    Listing,
    Reject,
    Rejected,
    Request,
    Tally,
)
from pipelines.outside import printable
from pipelines.usage import UsageError, nearest

TASKS = ("classification",)
COLUMNS = {"path": "path", "label": "label", "split": None, "group": None}
ALIASES = {"val": "validation", "valid": "validation", "dev": "validation", "training": "train", "testing": "test"}
Row = dict[str, str]  # what a row says, by use


def listing(request: Request) -> Listing:
    """Every row; the classes are the labels that occur, sorted, unless `dataset.labels` names them."""
    columns = _columns(request.dataset.columns or {})
    sources.files_of(request, "annotations")
    tables = {given: _rows(file, columns) for given, file in request.places["annotations"].items()}
    tally = Tally(examples=sum(map(len, tables.values())))
    occurring = {row["label"] for rows in tables.values() for row in rows}
    labels = tuple(str(label) for label in request.dataset.labels or sorted(occurring - {""}))
    numbers = {label: number for number, label in enumerate(labels)}
    return Listing(labels, False, _items(request, tables, numbers), tally=tally)


def _columns(given: Any) -> dict[str, str | None]:
    """Names of the table's columns by use."""
    if not isinstance(given, dict):
        raise UsageError(
            f"dataset.columns: {given!r} is no mapping; write dataset.columns={{path: <column>,label: <column>}}"
        )
    columns = {**COLUMNS, **given}
    unknown = [str(use) for use in columns if use not in COLUMNS]
    if unknown:
        raise UsageError(f"dataset.columns: no column {', '.join(sorted(unknown))}; there are: {', '.join(COLUMNS)}")
    absent = [use for use in ("path", "label") if not columns[use]]
    if absent:
        raise UsageError(
            f"dataset.columns.{absent[0]}: a table cannot do without; write dataset.columns.{absent[0]}=<column>"
        )
    return {use: None if name is None else str(name).strip() for use, name in columns.items()}


def _rows(file: str, columns: Mapping[str, str | None]) -> list[Row]:
    """What each row says, without blanks around it: people write `, ` between fields."""
    try:
        text = files.read(file).decode("utf-8-sig")
        header, *rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    except UsageError:  # The store's failure, not the table's.
        raise
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not a table in UTF-8: {error}") from None
    except ValueError:
        raise UsageError(f"{file}: the table is empty; it begins with a line that names its columns") from None
    names = [name.strip() for name in header]
    places = {use: _place(file, use, name, names) for use, name in columns.items() if name}
    return [{use: row[at].strip() if at < len(row) else "" for use, at in places.items()} for row in rows if any(row)]


def _place(file: str, use: str, name: str, names: list[str]) -> int:
    if name not in names:
        there = ", ".join(printable(other) for other in names[:20])
        raise UsageError(
            f"{file}: no column {name!r} for {use}; the columns are {there}; name it: dataset.columns.{use}=<column>"
        )
    return names.index(name)


def _items(request: Request, tables: dict[str, list[Row]], numbers: dict[str, int]) -> Iterator[Example | Reject]:
    for given, rows in tables.items():
        folders = sources.folders_of(request, "images", given)
        for number, row in enumerate(rows, start=2):
            split = sources.split_of(given, row.get("group") or row["path"], request.dataset)
            try:
                split = _stated(row) if row.get("split") and given == ALL else split
                yield _example(split, row, folders, numbers)
            except Rejected as rejected:
                yield Reject(split, row["path"] or sources.NAMELESS, f"line {number}", rejected.code, rejected.advice)


def _stated(row: Row) -> str:
    """The split that a row names.

    Raises:
        Rejected: there is no such split; nothing would be trained or evaluated on it.
    """
    stated = row["split"].lower()
    split = ALIASES.get(stated, stated)
    if split not in SPLITS:
        raise Rejected("unknown_split", f"there is no split {printable(row['split'])!r}{nearest(stated, SPLITS)}")
    return split


def _example(split: str, row: Row, folders: list[Folder], numbers: dict[str, int]) -> Example:
    name, label = row["path"], row["label"]
    if not name:
        raise Rejected("path_empty", "write the image's path, relative to dataset.images, or remove the row")
    file, sha256 = sources.find(name, folders)
    if label not in numbers:
        raise Rejected("unknown_class", f"label {printable(label)!r} is not in dataset.labels")
    return Example(split, name, file, name, sources.digest(sha256, label), {"label": numbers[label], "text": label}, {file: sha256})


def load(example: Example, image: Image, request: Request) -> dict[str, Any]:
    """The label of one image."""
    return {"label": example.more["label"], "text": example.more["text"]}
