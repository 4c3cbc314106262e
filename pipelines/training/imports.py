"""Packages that a training imports and hardly ever uses: each is imported when something of it is first asked for."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

PYPLOT = "matplotlib.pyplot"
# TensorFlow's look-up of cloud machines, Keras's reading of tables and turning of pictures, the official reading of TFDS builders
# and drawing of boxes: 1.3 s together.
LATE = (
    "googleapiclient.discovery",
    "pandas",
    "tensorflow_datasets",
    "scipy.linalg",
    "scipy.ndimage",
    PYPLOT,
)


class Late(ModuleType):
    """Stands for a module until something of it is asked for."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec  # By which others see whether a package is installed.

    def __getattr__(self, name: str) -> Any:
        # Whoever walks through all modules looks for their files, as `inspect` does: that asks for nothing.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def postponed() -> Iterator[None]:
    """Inside, the packages named above are imported late."""
    late = {}
    for name in LATE:
        spec = None if name in sys.modules else _spec(name)
        if spec:
            late[name] = Late(spec)
    if PYPLOT in late:
        # As the official import of it does, which would then look what pyplot says to that.
        sys.modules["matplotlib"].use("Agg")
    sys.modules.update(late)
    try:
        yield
    finally:
        for name, module in late.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _spec(name: str) -> ModuleSpec | None:
    """Where a module lies; None where it is not installed."""
    try:
        return find_spec(name)
    except ModuleNotFoundError:
        return None
