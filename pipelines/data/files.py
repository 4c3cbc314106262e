"""Files of a source, on disk or in a bucket: what is remote is listed and read through fsspec, by any process, without TensorFlow."""

import functools
import hashlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import fsspec

from pipelines.usage import UsageError

PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}  # what fsspec needs for a scheme
# Names under which stores give what changes with a file's content.
STAMPS = ("ETag", "etag", "mtime", "LastModified")
CHUNK = 4 * 2**20


def is_remote(path: str) -> bool:
    """Whether a path is an address such as gs://…"""
    return "://" in path


def check(field: str, path: str) -> None:
    """Refuses an address that cannot be read.

    Raises:
        UsageError: its scheme is unknown, or what reads it is not installed; the message names the package.
    """
    scheme = path.partition("://")[0]
    if scheme not in PACKAGES:
        raise UsageError(
            f"{field}: {path}: {scheme}:// cannot be read; give a local path, gs://… or s3://…"
        )
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError:
        package = PACKAGES[scheme]
        raise UsageError(
            f"{field}: {path}: {scheme}:// is read with {package}, which is not installed; install it: .venv/bin/uv pip install {package}"
        ) from None


def listed(place: str) -> Iterator[tuple[str, list[int | str]]]:
    """Path inside, size and stamp of every file of a remote folder, sorted; a file itself under the empty name.

    A stamp changes with the content; it is empty where the store gives none.

    Raises:
        UsageError: there is nothing at that place, or the store does not answer.
    """
    store, root = fsspec.core.url_to_fs(place)
    store.invalidate_cache()
    try:
        with _answering(place):
            info = store.info(root)
            entries = {root: info}
            if info["type"] != "file":
                entries = store.find(root, detail=True)
    except FileNotFoundError:
        raise UsageError(f"{place}: there is no such file or folder") from None
    for path, info in sorted(entries.items()):
        name = path[len(root) :].lstrip("/")
        if not any(part.startswith(".") for part in name.split("/")):
            yield name, [info["size"], _stamp(info)]


def _stamp(info: Mapping[str, Any]) -> str:
    for key in STAMPS:
        if info.get(key):
            return str(info[key])
    return ""


def read(file: str, start: int = 0, length: int | None = None) -> bytes:
    """The bytes of a file, or a part of them.

    Raises:
        OSError: the file is not there; of a local one also that it cannot be read.
        UsageError: the store does not give it, which says nothing about the file.
    """
    if is_remote(file):
        store, path = fsspec.core.url_to_fs(file)
        with _answering(file):
            return store.cat_file(
                path,
                start,
                None if length is None else start + length,
            )
    with open(file, "rb") as content:
        content.seek(start)
        return content.read(-1 if length is None else length)


@contextmanager
def opened(file: str) -> Iterator[io.BufferedReader]:
    """A file for reading in parts; raises what `read` does."""
    if is_remote(file):
        store, path = fsspec.core.url_to_fs(file)
        with _answering(file), store.open(path, "rb") as content:
            yield content
    else:
        with open(file, "rb") as content:
            yield content


def upload(folder: str, address: str) -> None:
    """Copies what is in a local folder to an address.

    Raises:
        UsageError: the store does not take it.
    """
    store, root = fsspec.core.url_to_fs(address)
    with _answering(address):
        store.put(
            f"{folder}/",
            f"{root}/",
            recursive=True,
        )


@contextmanager
def _answering(place: str) -> Iterator[None]:
    """Names the place where a store fails: out of reach, or without the right to it. Each library raises its own errors."""
    try:
        yield
    except (FileNotFoundError, UsageError):
        raise
    except Exception as error:
        raise UsageError(
            f"{place}: cannot be fetched: {' '.join(repr(error).split())[:300]}"
        ) from error


@functools.lru_cache(maxsize=4)
def kept(file: str, digest: str) -> IO[bytes]:
    """A file that a process keeps open, to read by position with `os.pread`; of a remote one a copy without a name.

    Raises:
        UsageError: the file is no longer the one of that SHA-256.
    """
    if not is_remote(file):
        return _unchanged(file, digest)
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (it is kept open)
    sha256 = hashlib.sha256()
    with opened(file) as content:
        while chunk := content.read(CHUNK):
            sha256.update(chunk)
            copy.write(chunk)
    if sha256.hexdigest() != digest:
        raise UsageError(f"{file}: cannot be fetched: it has changed since it was listed")
    copy.flush()
    return copy


def _unchanged(file: str, digest: str) -> IO[bytes]:
    content = open(file, "rb")  # noqa: SIM115 (it is kept open)
    if hashlib.file_digest(content, "sha256").hexdigest() != digest:
        content.close()
        raise UsageError(
            f"{file}: it has changed since it was listed; run the same command again when nothing writes to it any more"
        )
    return content
