"""SavedModels to start from: a folder, or a handle of TF Hub (https://…) with a copy of it on this machine."""

import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from pipelines.config import absolute
from pipelines.outside import printable, reason
from pipelines.usage import UsageError
from pipelines.weights import store

MARK = "saved_model.pb"  # what makes a folder a SavedModel
CACHE = "TFHUB_CACHE_DIR"  # Hub's own variable
FORMAT = "?tf-hub-format=compressed"
SECONDS = 60


def is_saved_model(init: str) -> bool:
    """Whether `init` is a folder that holds a SavedModel."""
    return Path(absolute(init), MARK).is_file()


def is_handle(init: str) -> bool:
    """Whether `init` is an address of the web."""
    return init.startswith(("https://", "http://"))


def folder(init: str, data_dir: str) -> Path:
    """The folder of a SavedModel, fetched where it is not here.

    Raises:
        UsageError: the handle does not answer; says what to bring, and where to put it.
    """
    if not is_handle(init):
        return Path(absolute(init))
    place = cached(init, data_dir)
    if not (place / MARK).is_file():
        _fetch(init, place)
    return place


def cached(handle: str, data_dir: str) -> Path:
    """Where the copy of a handle lies: in Hub's cache where its variable names one, as Hub does, else in the local store."""
    cache = os.environ.get(CACHE) or store.folder(data_dir) / "hub"
    return Path(cache, hashlib.sha1(handle.encode()).hexdigest())


def digest(folder: Path) -> str:
    """SHA-256 over the graph and the variables, which is what a SavedModel computes with."""
    total = hashlib.sha256()
    for file in [folder / MARK, *sorted((folder / "variables").glob("*"))]:
        total.update(f"{file.name} {store.digest(file)}\n".encode())
    return total.hexdigest()


def _fetch(handle: str, place: Path) -> None:
    print(f"fetching {printable(handle)}", flush=True)
    try:
        with urllib.request.urlopen(handle + FORMAT, timeout=SECONDS) as answer:
            content = answer.read()
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as archive:
            archive.extractall(place, filter="data")
    except (OSError, urllib.error.URLError, tarfile.TarError) as error:
        raise UsageError(
            f"init: {printable(handle, 200)} does not answer with a SavedModel ({reason(error, 100)}); bring it: unpack its "
            f"archive, so that {place}/{MARK} is there, or name the folder that it lies in: INIT=<folder>; "
            "from random weights: INIT=scratch"
        ) from None
    if not (place / MARK).is_file():
        raise UsageError(f"init: {printable(handle, 200)} is no SavedModel: it has no {MARK}")
