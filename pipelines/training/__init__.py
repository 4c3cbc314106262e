"""Training by Model Garden. Importing what is here takes seconds, as TensorFlow does; some of that is put off.

What TensorFlow and Model Garden import at their start and a training hardly ever touches is executed at its first use.
"""

import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

UNUSED = (
    "googleapiclient.discovery",  # of tf.distribute, for TPUs in Google Cloud
    "matplotlib.pyplot",  # of Model Garden's drawings
    "pandas",  # of Keras, which looks whether `fit` was given a frame
    "requests",  # of tf.distribute, to ask Google Cloud whether this machine is about to be taken away
    "scipy.ndimage",  # of Keras' preprocessing
    "tensorflow_datasets",  # of Model Garden's readers
)


class _Unread(ModuleType):
    """A module that is executed when it is asked for a name that it does not have yet."""

    # importlib's LazyLoader is woken by any attribute, and AutoGraph asks every module for its `__file__`.
    def __getattr__(self, name: str) -> Any:
        within = self.__spec__.submodule_search_locations if self.__spec__ else None
        if name.startswith("__") and name != "__version__" and (name != "__path__" or within is None):
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        if within is not None:
            self.__path__ = within
        self.__spec__.loader.exec_module(self)  # type: ignore[union-attr]
        return getattr(self, name)


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        if type(module) is ModuleType and module.__spec__ and module.__spec__.loader_state is None:
            module.__spec__.loader_state = "unread"
            module.__class__ = _Unread
            vars(module).pop("__path__", None)  # Whoever imports a part of it asks for this, and must find it executed.
        else:
            super().exec_module(module)


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if name in UNUSED else None
        if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec


sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]
