"""The environment of a run: machine, packages, the source down to the last uncommitted line."""

import functools
import hashlib
import importlib.util
import platform
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from pipelines import own
from pipelines.system import arithmetic, git, processes
from pipelines.system.processes import ROOT

SOURCES = ("conf", "pipelines", "tasks")  # New files in here belong to the recorded tree.
VARIABLES = (*arithmetic.CHOOSING, "NVIDIA_", "TPU_", "TRELLIS_")


def describe(modules: Sequence[str] = ()) -> dict[str, Any]:
    """Everything outside the configuration that a result may depend on.

    `git` says what was checked out and changed, `own` the same of what is the user's own.

    Args:
        modules: those that the configuration names.
    """
    described = own.describe(modules)
    digests = {name: project["digest"] for name, project in described.items()}
    digests.pop(own.VARIABLE, None)  # A recorded configuration is whole.
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
        "sources": {"Model Garden": sources("official"), **digests},
        "own": described,
        "git": dict(at_start()),
    }


def packages() -> list[str]:
    """Installed distributions as `name==version`, sorted."""
    versions = {}
    # The first folder of the path wins, so it comes last. The names of the folders tell all:
    # reading 250 files of metadata takes a quarter of a second.
    for entry in reversed(sys.path):
        for folder in Path(entry).glob("*.dist-info"):
            name, _, version = folder.stem.partition("-")
            versions[normal(name)] = version
    return sorted(f"{name}=={version}" for name, version in versions.items())


def sources(package: str) -> str | None:
    """Digest of an installed package's own Python files, whose version a patch does not change; None: not installed."""
    found = importlib.util.find_spec(package)
    if found is None:
        return None
    digest = hashlib.sha256()
    for folder in found.submodule_search_locations or ():
        for file in sorted(Path(folder).rglob("*.py")):
            digest.update(f"{file.relative_to(folder)}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@functools.cache
def at_start() -> dict[str, Any]:
    """The source tree as it was when this process first asked.

    A verb that records asks before it does anything else.
    """
    return source_tree()


def source_tree(root: Path = ROOT) -> dict[str, Any]:
    """Commit, branch and difference of a source tree.

    Checking out `commit` and applying `diff` rebuilds it. `commit` is null outside a git work tree
    and where git refuses; `problem` then says why it does.
    """
    unknown = {"commit": None, "branch": None, "dirty": None, "diff": "", "problem": None}
    try:
        top = git.run(root, "rev-parse", "--show-toplevel").rstrip("\n")
        if Path(top).resolve() != root.resolve():
            return unknown  # The work tree around us is another project's.
        commit = git.run(root, "rev-parse", "HEAD").strip()
        branch = git.run(root, "rev-parse", "--abbrev-ref", "HEAD").strip()
        diff = _difference(root)
    except git.GitError as error:
        if "not a git repository" in str(error):
            return unknown
        return {**unknown, "problem": str(error)}
    return {
        "commit": commit,
        "branch": branch,
        "dirty": bool(diff),
        "diff": diff,
        "problem": None,
    }


def _difference(root: Path) -> str:
    """The tree against its commit, new source files included, as `git apply` reads it."""
    with tempfile.TemporaryDirectory() as scratch:
        # The user's index remembers files that looked unchanged under other settings; ours does
        # not.
        index = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        entries = git.run(root, "ls-files", "--stage", "-z")
        git.run(
            root,
            "update-index",
            "-z",
            "--index-info",
            text=entries,
            variables=index,
        )
        present = [name for name in SOURCES if Path(root, name).exists()]
        git.run(root, "add", "--intent-to-add", "--", *present, variables=index)
        git.run(root, "update-index", "-q", "--refresh", variables=index)
        return git.run(root, *git.PATCH, "HEAD", variables=index)


def normal(name: str) -> str:
    """A distribution's name as indexes and locks spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()
