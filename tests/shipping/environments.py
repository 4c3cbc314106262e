"""New environments with a few packages alone, and the samples beside exported files asked there."""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT


def environment(folder: Path, *packages: str) -> Path:
    """The Python of a new environment with these packages alone, as the lock has them and `make setup` has fetched them."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    lock = folder / "requirements.lock"
    lock.write_text(_locked(_with_needs(packages)))
    # What is pinned by its digest is taken out of the cache; to resolve versions would take an index too.
    install = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--require-hashes"]
    subprocess.run([*install, "--python", python, "--requirements", lock], check=True)
    return python


def _with_needs(packages: Sequence[str]) -> set[str]:
    """Names of packages, and of all that they need here."""
    names: set[str] = set()
    waiting = [*packages]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in names:
            continue
        names.add(name)
        for needed in map(Requirement, requires(name) or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(needed.name)
    return names


def _locked(names: set[str]) -> str:
    """The entries of the lock for these packages: a line with the version, and one for each digest."""
    kept = []
    taken = False
    for line in (ROOT / "requirements.lock").read_text().splitlines(keepends=True):
        if not line.startswith(" "):
            taken = line.partition("==")[0] in names
        if taken:
            kept.append(line)
    return "".join(kept)


def asked(python: Path, folder: Path, pictures: Sequence[Path], cwd: Path) -> list[str]:
    """The lines that the sample beside an exported file prints of pictures, in an environment that has not this tool."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, folder / "sample.py", *pictures]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=cwd, env=variables
    )
    return done.stdout.splitlines()
