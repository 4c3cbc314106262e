"""Reads the tensors of a PyTorch file without PyTorch, by an unpickler that refuses everything else.

Both forms: a sequence of pickles with the raw numbers behind them, which PyTorch wrote before 1.6, and an archive of
one pickle and a member for each storage.
"""

import collections
import io
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from pipelines.outside import printable
from pipelines.usage import UsageError

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older form
PROTOCOL = 1001
KINDS = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}
MOST_NUMBERS = 2**31  # of one tensor; a file that claims more is none of weights

Tensors = dict[str, np.ndarray]


class _Storage:
    """Numbers that tensors are views of; known by name before they are read."""

    def __init__(self, kind: np.dtype, key: str, count: int) -> None:
        self.kind = kind
        self.key = key
        self.count = count


class _View:
    """A tensor: a part of a storage, with a shape and steps."""

    def __init__(self, storage: _Storage, offset: int, shape: Iterable[int], steps: Iterable[int]):
        self.storage = storage
        self.offset = int(offset)
        self.shape = tuple(map(int, shape))
        self.steps = tuple(map(int, steps))

    def numbers(self, storage: np.ndarray) -> np.ndarray:
        """The tensor; refuses one that reaches outside its storage."""
        last = self.offset
        for length, step in zip(self.shape, self.steps, strict=True):
            last += (length - 1) * step
        smallest = min(self.offset, last, *self.shape, *self.steps)
        if smallest < 0 or last >= storage.size:
            raise ValueError("a tensor reaches outside its numbers")
        strides = [step * storage.itemsize for step in self.steps]
        rest = storage[self.offset :]
        view = as_strided(rest, self.shape, strides)
        return np.ascontiguousarray(view).reshape(self.shape)


def _rebuilt(storage: _Storage, offset: int, shape: Any, steps: Any, *_: Any) -> _View:
    return _View(storage, offset, shape, steps)


# All that such a pickle may name. A name maps to what stands for it here, never to what it names.
ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    **{("torch", name): kind for name, kind in KINDS.items()},
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        word, kind, key, _, count, *_ = pid
        is_storage = word == "storage" and isinstance(kind, np.dtype)
        if not is_storage or not 0 <= count < MOST_NUMBERS:
            raise pickle.UnpicklingError("it refers to something other than numbers")
        return _Storage(kind, str(key), int(count))


def read(file: Path) -> Tensors:
    """Every tensor of a PyTorch file by name.

    Raises:
        UsageError: it is none, is cut off, or wants anything built but tensors.
    """
    try:
        if zipfile.is_zipfile(file):
            return _read_archive(file)
        with file.open("rb") as stream:
            return _read_sequence(stream)
    # Damaged pickles fail in every way there is.
    except Exception as error:
        raise UsageError(
            f"{file}: is no PyTorch file of plain tensors: {printable(error, 200)}"
        ) from None


def _read_sequence(stream: IO[bytes]) -> Tensors:
    for expected in (MAGIC, PROTOCOL):
        if _Reader(stream).load() != expected:
            raise ValueError("it does not begin as one")
    _Reader(stream).load()  # Sizes of the machine that wrote it.
    views = _views(_Reader(stream).load())
    keys = _Reader(stream).load()
    kinds = _storages(views)
    storages = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        storage = kinds[key]
        if count != storage.count:
            raise ValueError("a storage has another length than is said")
        storages[key] = _numbers(stream, storage)
    return _tensors(views, storages.__getitem__)


def _read_archive(file: Path) -> Tensors:
    with zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = name.removesuffix("data.pkl")
        content = io.BytesIO(archive.read(name))
        views = _views(_Reader(content).load())
        kinds = _storages(views)

        def storage(key: str) -> np.ndarray:
            with archive.open(f"{folder}data/{key}") as stream:
                return _numbers(stream, kinds[key])

        return _tensors(views, storage)


def _numbers(stream: IO[bytes], storage: _Storage) -> np.ndarray:
    content = stream.read(storage.count * storage.kind.itemsize)
    numbers = np.frombuffer(content, storage.kind)
    if numbers.size != storage.count:
        raise ValueError("it is cut off")
    return numbers


def _storages(views: Mapping[str, _View]) -> dict[str, _Storage]:
    storages = {}
    for view in views.values():
        storages[view.storage.key] = view.storage
    return storages


def _views(document: Any) -> Mapping[str, _View]:
    document = document.get("state_dict", document)
    views = {}
    for name, value in document.items():
        if isinstance(value, _View):
            views[str(name)] = value
    if not views:
        raise ValueError("it has no tensors")
    return views


def _tensors(views: Mapping[str, _View], storage: Callable[[str], np.ndarray]) -> Tensors:
    tensors = {}
    for name, view in views.items():
        tensors[name] = view.numbers(storage(view.storage.key))
    return tensors
