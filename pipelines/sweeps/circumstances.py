"""What a trial's result depends on beside its settings and its data: code, libraries, processor, starting weights.

A trial that is finished counts only under equal circumstances. Under others it is trained anew, in its own directory.
"""

import glob
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.config import Config, absolute
from pipelines.system import arithmetic
from pipelines.system.processes import ROOT

# Values in `conf` count by what they compose to, so that a file for another experiment changes nothing here.
SOURCES = ("pipelines", "tasks", "conf")
# What computes a result, by the beginning of its name. Data count by their fingerprint, whatever wrote them.
COMPUTING = ("tensorflow", "tf-", "keras", "numpy", "scipy", "nvidia-", "opencv", "pycocotools")


def describe(cfg: Config, packages: Sequence[str]) -> dict[str, Any]:
    """The circumstances of a trial, as plain values that two sessions of a sweep can be compared by.

    Args:
        cfg: the trial's composed configuration.
        packages: installed distributions, each `name==version`.
    """
    computing = [line for line in packages if line.startswith(COMPUTING)]
    versions = dict(line.split("==", 1) for line in computing)
    circumstances = {"code": code(cfg.imports), "libraries": versions, **arithmetic.describe()}
    weights = cfg.task.get("init_checkpoint")
    if weights:
        circumstances["starting weights"] = _content(weights)
    return circumstances


def digest(circumstances: Any) -> str:
    """Names circumstances."""
    return hashlib.sha256(repr(circumstances).encode()).hexdigest()[:16]


def code(imports: Sequence[str] = (), root: Path = ROOT) -> str:
    """Digest of the Python source that trains: ours, and of `imports` what no installed distribution owns."""
    files: list[Path] = []
    for name in SOURCES:
        files += sorted((root / name).rglob("*.py"))
    return _digest_of([*files, *_own_modules(imports)])


def _own_modules(imports: Iterable[str]) -> Iterator[Path]:
    installed = Path(sysconfig.get_path("purelib"))
    for name in sorted({module.partition(".")[0] for module in imports}):
        for path in _module_paths(name):
            if path.is_relative_to(installed):
                continue  # Installed modules count by their version.
            if path.is_dir():
                yield from sorted(path.rglob("*.py"))
            else:
                yield path


def _module_paths(name: str) -> list[Path]:
    """The folders of a package, or the file of a module."""
    if name in sys.builtin_module_names:
        return []
    spec = importlib.util.find_spec(name)
    if spec is None:
        return []
    paths = spec.submodule_search_locations or [spec.origin or ""]
    return [Path(path) for path in paths]


def _content(checkpoint: str) -> str:
    """Digest of the files of a local checkpoint; an address counts by its name."""
    if "://" in checkpoint:
        return checkpoint
    path = Path(absolute(checkpoint))
    if path.is_dir():
        return _digest_of(sorted(path.rglob("*")))
    # A checkpoint is named by what its files begin with.
    parts = glob.glob(f"{glob.escape(str(path))}.*")
    return _digest_of([path, *map(Path, sorted(parts))])


def _digest_of(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        if file.is_file():
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            # Not the whole path: the same files may lie elsewhere.
            name = "/".join(file.parts[-3:])
            total.update(f"{name}\n{content}\n".encode())
    return total.hexdigest()[:16]
