"""What a process needs before it imports TensorFlow."""

import contextlib
import gc
import os
import shutil
import tempfile
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.system import durable, kernels
from pipelines.training import imports

COLLECTED_AFTER = (100_000, 20, 50)  # objects, and collections of younger ones
# Begins the modules whose classes are asked for their type hints again and again.
CONFIGURED = "official."
LOCK = "owner.lock"  # in a temporary folder: held while the process that it belongs to lives


@contextmanager
def prepared(cfg: Config, folder: Path) -> Iterator[None]:
    """Gives the process its own temporary folder, caps its instructions, hides GPUs that are not used, postpones imports."""
    if not cfg.runtime.get("num_gpus") and cfg.runtime.get("distribution_strategy") != "tpu":
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    kernels.cap(cfg.cpu_isa)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    with (
        _scratch(folder) as scratch,
        _temporary_files_in(scratch),
        imports.postponed(),
        _rare_collections(),
        _hints_once(),
    ):
        yield


@contextmanager
def _scratch(folder: Path) -> Iterator[str]:
    """A new folder `tmp-…` inside `folder`, taken away at the end."""
    made = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
    scratch = folder / made.name.removeprefix(".")
    with contextlib.ExitStack() as lock:
        # On a file system without locks nobody else will find it free either.
        with contextlib.suppress(OSError):
            lock.enter_context(durable.locked(made / LOCK))
        made.rename(scratch)  # Only now can others see it, with its lock held.
        try:
            yield str(scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    # NFS keeps an open file, the lock, until it is closed.
    shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _temporary_files_in(scratch: str) -> Iterator[None]:
    """Sends temporary files there, of TensorFlow too, which leaves one for every function that it traces."""
    before, chosen = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    try:
        yield
    finally:
        tempfile.tempdir = chosen
        if before is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Looks for unreachable objects seldom: what an import and a trace make by the million stays, and was looked at again and again."""
    before = gc.get_threshold()
    gc.set_threshold(*COLLECTED_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _hints_once() -> Iterator[None]:
    """Evaluates the type hints of a class of Model Garden once: its configurations ask for all of them with every value set."""
    official = typing.get_type_hints
    known: dict[type, dict[str, Any]] = {}

    def get_type_hints(subject: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        is_plain = isinstance(subject, type) and not args and not kwargs
        if not is_plain or not subject.__module__.startswith(CONFIGURED):
            return official(subject, *args, **kwargs)
        if subject not in known:
            known[subject] = official(subject)
        return dict(known[subject])

    replacement: Any = get_type_hints
    typing.get_type_hints = replacement
    try:
        yield
    finally:
        typing.get_type_hints = official


def _remove_abandoned(folder: Path) -> None:
    """Removes the temporary folders of processes that were killed.

    A lock tells, not a process number: other machines and containers, which count their own, may share the folder.
    """
    for lock in folder.glob(f"tmp-*/{LOCK}"):
        with contextlib.suppress(OSError):  # A file system without locks.
            # Its owner took it before the folder had this name, and nobody takes it again.
            if not durable.held(lock):
                shutil.rmtree(lock.parent, ignore_errors=True)
