"""Every vision experiment of the installed Model Garden as a table: what was measured of it, and what to type."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines import config
from pipelines.usage import UsageError, nearest

COLUMNS = ("name", "task", "status", "exports", "why")
FORMATS = ("table", "csv", "json")


def load() -> list[dict[str, str]]:
    """A row for each experiment, in the order of their names."""
    return [_row(name, facts) for name, facts in config.catalogue().items()]


def _row(name: str, facts: Mapping[str, Any]) -> dict[str, str]:
    answers = facts.get("exports") or {}
    written = [form for form, answer in answers.items() if answer == "ok"]
    return {
        "name": name,
        "task": facts.get("task") or "",
        "status": facts["status"],
        "exports": ",".join(written),
        "why": facts.get("why") or "",
    }


def answer(words: Mapping[str, str]) -> str:
    """The table that `trellis list all <column>=<value> format=<format>` asks for.

    Raises:
        UsageError: a column, value or format that there is not.
    """
    wanted = dict(words)
    form = wanted.pop("format", "table")
    if form not in FORMATS:
        raise UsageError(f"list: there is no format {form!r}{nearest(form, FORMATS)}")
    rows = load()
    for column, value in wanted.items():
        rows = _having(rows, column, value)
    return {"table": _as_text, "csv": _as_csv, "json": _as_json}[form](rows)


def _having(rows: Sequence[dict[str, str]], column: str, value: str) -> list[dict[str, str]]:
    if column not in COLUMNS:
        raise UsageError(f"list: there is no column {column!r}{nearest(column, COLUMNS)}")
    there = sorted({row[column] for row in rows})
    left = [row for row in rows if row[column] == value]
    if not left:
        raise UsageError(f"{column}: no experiment has {value!r}{nearest(value, there)}")
    return left


def _as_text(rows: Sequence[dict[str, str]]) -> str:
    lines = [f"{'EXP=catalogue/…':<40} {'task':<27} status"]
    for row in rows:
        why = f": {row['why']}" if row["why"] else ""
        lines.append(f"{row['name']:<40} {row['task']:<27} {row['status']}{why}")
    return "\n".join(lines)


def _as_csv(rows: Sequence[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def _as_json(rows: Sequence[dict[str, str]]) -> str:
    return json.dumps(list(rows), indent=1)
