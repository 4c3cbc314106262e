"""One vision task per module; the module is the interface: VERSION, METRIC, encode, decode, inputs."""

import importlib
from pathlib import Path
from types import ModuleType


def names() -> list[str]:
    """Names that `load` accepts; a leading underscore marks what tasks share."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if not file.stem.startswith("_"))


def load(name: str) -> ModuleType:
    """Imports one task.

    Raises:
        ValueError: there is no such task; the message lists those there are.
    """
    if name not in names():
        raise ValueError(f"no task {name!r}; there are: {', '.join(names())}")
    return importlib.import_module(f"tasks.{name}")
