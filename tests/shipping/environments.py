"""New environments with a few packages alone, and the samples beside exported files asked there."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT


def environment(folder: Path, *packages: str) -> Path:
    """The Python of a new environment with these packages alone, as the lock has them and `make setup` has fetched them."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    lock = ["--constraint", ROOT / "requirements.lock"]
    install = [uv, "pip", "install", "--quiet", "--offline", "--python", python, *lock]
    subprocess.run([*install, *packages], check=True)
    return python


def asked(python: Path, folder: Path, pictures: Sequence[Path], cwd: Path) -> list[str]:
    """The lines that the sample beside an exported file prints of pictures, in an environment that has not this tool."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, folder / "sample.py", *pictures]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=cwd, env=variables
    )
    return done.stdout.splitlines()
