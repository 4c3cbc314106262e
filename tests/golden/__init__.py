"""Golden files: what must not change unnoticed, as text that a review can read; `make golden` renews them."""

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).parent
RENEW = os.environ.get("GOLDEN") == "renew"


def changes(name: str, text: str) -> str:
    """The difference between golden file `name` and `text`, empty where they agree; under `make golden` it is written.

    A file that is absent differs in every line.
    """
    file = FOLDER / name
    before = file.read_text() if file.exists() else ""
    lines = difflib.unified_diff(
        before.splitlines(),
        text.splitlines(),
        f"{name} (golden)",
        f"{name} (now)",
        lineterm="",
        n=1,
    )
    difference = "\n".join(lines)
    if difference and RENEW:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        print(f"\n{difference}")
        return ""
    return difference
