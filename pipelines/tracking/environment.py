"""The environment a run was made in: machine, packages, and the source tree down to the last uncommitted line."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

import pipelines
from pipelines import arithmetic

ROOT = Path(pipelines.__file__).resolve().parent.parent
SOURCES = ("conf", "pipelines", "tasks")  # untracked files in here belong to the recorded tree
VARIABLES = (*arithmetic.CHOOSING, "NVIDIA_", "TPU_", "TRELLIS_")


def describe() -> dict[str, Any]:
    """Everything outside the configuration that a result may depend on; `git` says what was checked out and changed."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": arithmetic.model_name(),
        "cores": arithmetic.cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "command": sys.argv,
        "variables": arithmetic.recorded_variables(VARIABLES),
        "packages": packages(),
        "git": source_tree(),
    }


def packages() -> list[str]:
    """Installed distributions as `name==version`, sorted."""
    # The folders' names say it all, and reading 250 files of metadata takes a quarter of a second.
    folders = [folder.stem for entry in reversed(sys.path) for folder in Path(entry).glob("*.dist-info")]
    found = {normal(name): version for name, _, version in (folder.partition("-") for folder in folders)}
    return sorted(f"{name}=={version}" for name, version in found.items())


def source_tree(root: Path = ROOT) -> dict[str, Any]:
    """Commit, branch and difference of a source tree: checking out `commit` and applying `diff` rebuilds it.

    `commit` is null outside a git work tree.
    """
    commit = _git(root, "rev-parse", "HEAD").strip()
    top = _git(root, "rev-parse", "--show-toplevel").strip()
    if not commit or Path(top).resolve() != root.resolve():  # A clone of something else around us says nothing.
        return {"commit": None, "branch": None, "dirty": None, "diff": ""}
    diff = _difference(root)
    branch = _git(root, "rev-parse", "--abbrev-ref", "HEAD").strip()
    return {"commit": commit, "branch": branch, "dirty": bool(diff), "diff": diff}


def _difference(root: Path) -> str:
    """The tree against its commit, new source files included, as `git apply` reads it."""
    index = Path(root, _git(root, "rev-parse", "--git-path", "index").strip())
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "index")  # The user's own index is never touched.
        if index.exists():
            shutil.copy(index, copy)
        present = [name for name in SOURCES if Path(root, name).exists()]
        _git(root, "add", "--intent-to-add", "--", *present, index=copy)
        return _git(root, "diff", "HEAD", "--binary", "--full-index", "--no-color", "--no-ext-diff", index=copy)


def _git(root: Path, *arguments: str, index: Path | None = None) -> str:
    """What git prints, without its last word on errors: no git, no repository and no commit all print nothing."""
    if shutil.which("git") is None:
        return ""
    variables = {**os.environ, **({"GIT_INDEX_FILE": str(index)} if index else {}), "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-c", "core.quotePath=false", *arguments]
    return subprocess.run(command, cwd=root, env=variables, capture_output=True).stdout.decode("utf-8", "surrogateescape")


def normal(name: str) -> str:
    """A distribution's name as indexes and locks spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()
