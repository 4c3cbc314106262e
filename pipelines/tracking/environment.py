"""The environment a run was made in: machine, packages, and the source tree down to the last uncommitted line."""

import functools
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from pipelines.system import arithmetic, git, processes
from pipelines.system.processes import ROOT

SOURCES = ("conf", "pipelines", "tasks")  # untracked files in here belong to the recorded tree
VARIABLES = (*arithmetic.CHOOSING, "NVIDIA_", "TPU_", "TRELLIS_")


def describe() -> dict[str, Any]:
    """Everything outside the configuration that a result may depend on; `git` says what was checked out and changed."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": arithmetic.model_name(),
        "cores": processes.cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "command": sys.argv,
        "variables": arithmetic.recorded_variables(VARIABLES),
        "packages": packages(),
        "git": dict(at_start()),
    }


def packages() -> list[str]:
    """Installed distributions as `name==version`, sorted."""
    # The folders' names say it all, and reading 250 files of metadata takes a quarter of a second.
    folders = [
        folder.stem for entry in reversed(sys.path) for folder in Path(entry).glob("*.dist-info")
    ]
    found = {
        normal(name): version for name, _, version in (folder.partition("-") for folder in folders)
    }
    return sorted(f"{name}=={version}" for name, version in found.items())


@functools.cache
def at_start() -> dict[str, Any]:
    """The source tree as it was when this process first asked, which a verb that records does before anything else."""
    return source_tree()


def source_tree(root: Path = ROOT) -> dict[str, Any]:
    """Commit, branch and difference of a source tree: checking out `commit` and applying `diff` rebuilds it.

    `commit` is null outside a git work tree and where git refuses; `problem` then says why it does.
    """
    try:
        top = git.run(root, "rev-parse", "--show-toplevel").rstrip("\n")
        if (
            Path(top).resolve() != root.resolve()
        ):  # A clone of something else around us says nothing.
            return _unknown(None)
        commit = git.run(root, "rev-parse", "HEAD").strip()
        branch = git.run(root, "rev-parse", "--abbrev-ref", "HEAD").strip()
        diff = _difference(root)
    except git.GitError as error:
        return _unknown(None if "not a git repository" in str(error) else str(error))
    return {"commit": commit, "branch": branch, "dirty": bool(diff), "diff": diff, "problem": None}


def _unknown(problem: str | None) -> dict[str, Any]:
    return {"commit": None, "branch": None, "dirty": None, "diff": "", "problem": problem}


def _difference(root: Path) -> str:
    """The tree against its commit, new source files included, as `git apply` reads it."""
    with tempfile.TemporaryDirectory() as scratch:
        # An index of our own, without what the user's remembers of files that looked unchanged under other settings.
        index = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        entries = git.run(root, "ls-files", "--stage", "-z")
        git.run(root, "update-index", "-z", "--index-info", text=entries, variables=index)
        present = [name for name in SOURCES if Path(root, name).exists()]
        git.run(root, "add", "--intent-to-add", "--", *present, variables=index)
        git.run(root, "update-index", "-q", "--refresh", variables=index)
        return git.run(root, *git.PATCH, "HEAD", variables=index)


def normal(name: str) -> str:
    """A distribution's name as indexes and locks spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()
