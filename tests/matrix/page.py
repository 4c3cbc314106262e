"""docs/catalogue.md, drawn from the record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.system import durable

FILE = Path(__file__).parent.parent.parent / "docs" / "catalogue.md"
HEADER = """# The catalogue: every official vision experiment
"""


def write(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Draws the page."""
    durable.write_whole(FILE, text(rows))


def text(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The page."""
    lines = [HEADER, "| experiment | status | export |", "|---|---|---|"]
    for name, row in rows.items():
        exports = row.get("exports") or {}
        shown = ", ".join(form for form, answer in exports.items() if answer == "ok")
        why = str(row.get("why", "")).replace("|", "\\|")
        lines.append(f"| `{name}` | {row['status']}{': ' + why if why else ''} | {shown} |")
    return "\n".join(lines) + "\n"
