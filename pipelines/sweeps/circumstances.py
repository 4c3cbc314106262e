"""What a trial's result depends on beside its settings and its data: code, libraries, processor, starting weights.

A trial that is finished counts only under equal circumstances. Under others it is trained anew, in its own directory.
"""

import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines import own
from pipelines.config import Config, absolute, modules
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
    circumstances = {"code": code(modules(cfg)), "libraries": versions, **arithmetic.describe()}
    weights = cfg.task.get("init_checkpoint")
    if weights:
        circumstances["starting weights"] = _content(weights)
    return circumstances


def digest(circumstances: Any) -> str:
    """Names circumstances."""
    return hashlib.sha256(repr(circumstances).encode()).hexdigest()[:16]


def code(imports: Sequence[str] = (), root: Path = ROOT) -> str:
    """Digest of the Python source that trains: ours, and of `imports` what nobody has installed."""
    files: list[Path] = []
    for name in SOURCES:
        files += sorted((root / name).rglob("*.py"))
    for own_files in own.modules(imports).values():
        files += own_files
    return own.digest(files)


def _content(checkpoint: str) -> str:
    """Digest of the files of a local checkpoint; an address counts by its name."""
    if "://" in checkpoint:
        return checkpoint
    path = Path(absolute(checkpoint))
    if path.is_dir():
        return own.digest(sorted(path.rglob("*")))
    # A checkpoint is named by what its files begin with.
    parts = glob.glob(f"{glob.escape(str(path))}.*")
    return own.digest([path, *map(Path, sorted(parts))])
