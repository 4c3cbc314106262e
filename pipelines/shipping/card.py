"""The ship card: what each format of a model gives and costs, on the terminal, as JSON and as a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.outside import printable
from pipelines.system import durable

COLUMNS = (
    "format",
    "status",
    "figure",
    "change (95 %)",
    "same",
    "MB",
    "ms 1 thread p50/p95",
    "ms all threads p50/p95",
    "peak MB",
)
OK = "ok"
NONE = "-"


def cells(row: Mapping[str, Any]) -> list[str]:
    """The words of one format's row."""
    if "figure" not in row:
        return [
            row["format"],
            row["status"],
            *[NONE] * (len(COLUMNS) - 2),
        ]
    change = f"{100 * row['change']:+.2f}"
    if row.get("interval"):
        low, high = (100 * side for side in row["interval"])
        change = f"{change} ({low:+.2f} to {high:+.2f})"
    return [
        row["format"],
        row["status"],
        f"{row['figure']:.4f}",
        change,
        f"{row['agreement']:.3%}",
        f"{row['bytes'] / 1e6:.2f}",
        _times(row.get("one_thread")),
        _times(row.get("all_threads")),
        _peak(row.get("all_threads")),
    ]


def _times(measured: Mapping[str, float] | None) -> str:
    return f"{measured['p50_ms']:.1f}/{measured['p95_ms']:.1f}" if measured else NONE


def _peak(measured: Mapping[str, float] | None) -> str:
    return f"{measured['peak_mb']:.0f}" if measured else NONE


def notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What an int8 model computes in floats all the same, a sentence for each format that tells of it."""
    lines = []
    for row in rows:
        if "operations" in row:
            lines.append(_in_floats(row["format"], row["operations"], row["float_operations"]))
    return lines


def _in_floats(form: str, count: int, names: Mapping[str, int]) -> str:
    if not names:
        return f"{form}: none of {count} operations computes in floats"
    listed = ", ".join(f"{number} {name}" for name, number in names.items())
    return f"{form}: {sum(names.values())} of {count} operations compute in floats: {listed}"


def broken(row: Mapping[str, Any], limits: Mapping[str, float | None]) -> list[str]:
    """The limits that a format breaks, a sentence each.

    Args:
        limits: `max_ms` (p95 at all threads), `max_mb` (of the file), `max_drop` (in points), None where there is none.
    """
    if "figure" not in row:
        return []
    measured = row.get("all_threads") or {}
    values = {
        "max_ms": measured.get("p95_ms", 0.0),
        "max_mb": row["bytes"] / 1e6,
        "max_drop": -100 * row["change"],
    }
    lines = []
    for name, most in limits.items():
        if most is not None and values[name] > most:
            lines.append(f"{row['format']}: {name}={most:g} is broken: {values[name]:.3g}")
    return lines


def show(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    console: Console,
) -> None:
    """Prints the card."""
    table = Table(title=title, title_justify="left")
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(printable(cell, 300) for cell in cells(row)))
    console.print(table)
    for line in notes(rows):
        console.print(printable(line, 500), highlight=False)


def with_earlier(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The card with the rows of earlier exports, on this machine and of the same step, whose files still lie in its folder."""
    file = folder / "card.json"
    if not file.exists():
        return dict(document)
    earlier = json.loads(file.read_text())
    if earlier["machine"] != document["machine"]:
        return dict(document)
    rows = list(document["formats"])
    exported = [row["format"] for row in rows]
    steps = {row["step"] for row in rows if "step" in row}
    for row in earlier["formats"]:
        name = row.get("file")
        if row["format"] in exported or name is None:
            continue
        of_another = bool(steps) and row.get("step") not in steps
        if not of_another and (folder / name).exists():
            rows.append(row)
    return {
        **document,
        "formats": rows,
    }


def write(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes the card as `card.json`, `card.md` and `card.png`."""
    texts = {
        "card.json": json.dumps(document, indent=1) + "\n",
        "card.md": markdown(document["formats"]),
    }
    files = []
    for name, text in texts.items():
        durable.write_whole(folder / name, text)
        files.append(folder / name)
    return [*files, _picture(document, folder / "card.png")]


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The card as a table of Markdown, and below it what is to be said of int8."""
    lines = [
        COLUMNS,
        ["---"] * len(COLUMNS),
        *(cells(row) for row in rows),
    ]
    table = [f"| {' | '.join(map(_in_a_cell, line))} |\n" for line in lines]
    return "".join([*table, *(f"\n{line}\n" for line in notes(rows))])


def _in_a_cell(word: str) -> str:
    return " ".join(word.split()).replace("|", "\\|")


def _picture(document: Mapping[str, Any], file: Path) -> Path:
    from matplotlib.figure import Figure  # Half a second, where something is drawn.

    rows = [_short(cells(row)) for row in document["formats"]]
    title = [document["title"], *(_cut(line, 180) for line in notes(document["formats"]))]
    figure = Figure(figsize=(15, 1.2 + 0.35 * len(rows) + 0.2 * len(title)))
    axes = figure.subplots()
    axes.axis("off")
    table = axes.table(
        rows,
        colLabels=list(COLUMNS),
        loc="center",
        cellLoc="left",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.auto_set_column_width(list(range(len(COLUMNS))))
    axes.set_title("\n".join(title), loc="left", fontsize=9)
    figure.savefig(file, dpi=120)
    return file


def _short(words: list[str]) -> list[str]:
    return [_cut(word, 42) for word in words]


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"
