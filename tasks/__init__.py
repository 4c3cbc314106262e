"""One vision task per module; the module is the interface: VERSION, METRIC, SHARES, PICTURES, encode, decode, inputs."""

import importlib
from pathlib import Path
from types import ModuleType

from pipelines import own
from pipelines.usage import UsageError, nearest


def names() -> list[str]:
    """Names that `load` accepts; a leading underscore marks what tasks share."""
    return sorted(
        file.stem for file in Path(__file__).parent.glob("*.py") if not file.stem.startswith("_")
    )


def load(name: str) -> ModuleType:
    """Imports one task.

    Args:
        name: a file of this folder, or a module of the user's own, which has a dot in its name.

    Raises:
        UsageError: there is no such task; the message names the nearest.
    """
    if "." in name:
        return own.imported(name, "dataset.task")
    if name not in names():
        raise UsageError(f"dataset.task: no task {name!r}{nearest(name, names())}")
    return importlib.import_module(f"tasks.{name}")
