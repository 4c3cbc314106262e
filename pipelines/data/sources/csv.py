"""A table of images: one row each, with columns for path, label and, if wanted, split and group."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.data import files, keys, lookup
from pipelines.data.example import Example, Folder, Loaded, Reject, Rejected, of_class
from pipelines.data.images import Image
from pipelines.data.keys import ALL, SPLITS
from pipelines.data.listing import Facts, Listing, Request, Tally
from pipelines.outside import printable, quoted
from pipelines.usage import UsageError, nearest

FACTS = Facts(tasks=("classification",), required=("images", "annotations"))
COLUMNS = {"path": "path", "label": "label", "split": None, "group": None}
ALIASES = {
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "training": "train",
    "testing": "test",
}
Row = dict[str, str]  # what a row says, by use


def listing(request: Request) -> Listing:
    """Every row; the classes are the labels that occur, sorted, unless `dataset.labels` names them."""
    columns = _columns(request.dataset.columns or {})
    lookup.files_of(request, "annotations")
    tables: dict[str, list[Row]] = {}
    occurring: set[str] = set()
    for given, file in request.places["annotations"].items():
        tables[given] = _rows(file, columns)
        occurring.update(row["label"] for row in tables[given])
    classes = request.dataset.labels or sorted(occurring - {""})
    labels = tuple(str(label) for label in classes)
    numbers = {label: number for number, label in enumerate(labels)}
    tally = Tally(examples=sum(map(len, tables.values())))
    return Listing(
        labels,
        False,
        _items(request, tables, numbers),
        tally=tally,
    )


def _columns(given: Any) -> dict[str, str | None]:
    """Names of the table's columns by use."""
    if not isinstance(given, dict):
        example = "dataset.columns={path: <column>,label: <column>}"
        raise UsageError(f"dataset.columns: {given!r} is no mapping; write {example}")
    columns = {**COLUMNS, **given}
    unknown = sorted(str(use) for use in columns if use not in COLUMNS)
    if unknown:
        uses = ", ".join(COLUMNS)
        raise UsageError(f"dataset.columns: no column {', '.join(unknown)}; there are: {uses}")
    for use in ("path", "label"):
        if not columns[use]:
            field = f"dataset.columns.{use}"
            raise UsageError(f"{field}: a table cannot do without; write {field}=<column>")
    names: dict[str, str | None] = {}
    for use, name in columns.items():
        names[use] = None if name is None else str(name).strip()
    return names


def _rows(file: str, columns: Mapping[str, str | None]) -> list[Row]:
    """What each row says, without blanks around it: people write `, ` between fields."""
    try:
        text = files.read(file).decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True))
    except UsageError:  # The store's failure, not the table's.
        raise
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not a table in UTF-8: {error}") from None
    if not lines:
        advice = "it begins with a line that names its columns"
        raise UsageError(f"{file}: the table is empty; {advice}")
    header = [name.strip() for name in lines[0]]
    numbers: dict[str, int] = {}
    for use, name in columns.items():
        if name:
            numbers[use] = _column(file, use, name, header)
    return [_row(line, numbers) for line in lines[1:] if any(line)]


def _row(line: Sequence[str], numbers: Mapping[str, int]) -> Row:
    row: Row = {}
    for use, number in numbers.items():
        # A short line has nothing in its last columns.
        row[use] = line[number].strip() if number < len(line) else ""
    return row


def _column(
    file: str,
    use: str,
    name: str,
    header: Sequence[str],
) -> int:
    """Which column of a table has a name."""
    if name not in header:
        columns = ", ".join(printable(column) for column in header[:20])
        raise UsageError(
            f"{file}: no column {name!r} for {use}; the columns are {columns}; "
            f"name it: dataset.columns.{use}=<column>"
        )
    return header.index(name)


def _items(
    request: Request,
    tables: Mapping[str, list[Row]],
    numbers: Mapping[str, int],
) -> Iterator[Example | Reject]:
    for given, rows in tables.items():
        folders = lookup.folders_of(request, "images", given)
        for number, row in enumerate(rows, start=2):
            group = row.get("group") or row["path"]
            split = keys.chosen_split(given, group, request.dataset)
            try:
                if row.get("split") and given == ALL:
                    split = _stated_split(row)
                yield _example(split, row, folders, numbers)
            except Rejected as rejected:
                name = row["path"] or lookup.NAMELESS
                yield Reject(
                    split,
                    name,
                    f"line {number}",
                    rejected.code,
                    rejected.advice,
                )


def _stated_split(row: Row) -> str:
    """The split that a row names.

    Raises:
        Rejected: there is no such split; nothing would be trained or evaluated on it.
    """
    stated = row["split"].lower()
    split = ALIASES.get(stated, stated)
    if split not in SPLITS:
        advice = f"there is no split {quoted(row['split'])}{nearest(stated, SPLITS)}"
        raise Rejected("unknown_split", advice)
    return split


def _example(
    split: str,
    row: Row,
    folders: Sequence[Folder],
    numbers: Mapping[str, int],
) -> Example:
    name = row["path"]
    label = row["label"]
    if not name:
        advice = "write the image's path, relative to dataset.images, or remove the row"
        raise Rejected("path_empty", advice)
    file, sha256 = lookup.find(name, folders)
    if label not in numbers:
        raise Rejected("unknown_class", f"label {quoted(label)} is not in dataset.labels")
    return of_class(split, name, file, sha256, label, numbers)


def load(example: Example, image: Image, request: Request) -> Loaded:
    """The label of one image."""
    return Loaded({"label": example.own["label"], "text": example.own["text"]})
