"""What is installed is this tree, and the lock can be trusted."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import conf
import pipelines
import tasks

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "bootstrap.lock")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel built from a copy of the tree."""
    copy = tmp_path_factory.mktemp("wheel") / "tree"
    copy.mkdir()
    for name in ("conf", "pipelines", "tasks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "docs", "data", "runs"):  # What lies beside the packages must stay out.
        (copy / name).mkdir()
        (copy / name / "stray.py").touch()
    (copy / "README.md").write_text("Trellis\n")
    shutil.copy(ROOT / "pyproject.toml", copy)
    build = "import setuptools.build_meta as build; build.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    [built] = (copy / "dist").glob("*.whl")
    return set(zipfile.ZipFile(built).namelist())


def locked(name: str) -> dict[str, str]:
    """The requirements of a lock, each with its hashes."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"(?m)^\s*#.*\n", "", (ROOT / name).read_text()))
    return {entry.split()[0]: entry for entry in entries if entry.strip()}


@pytest.mark.parametrize("package", [conf, pipelines, tasks], ids=lambda package: package.__name__)
def test_packages_are_imported_from_this_tree(package: object) -> None:
    assert Path(str(package.__file__)).parent.parent == ROOT  # type: ignore[attr-defined]


def test_installed_packages_are_those_of_this_tree(tmp_path: Path) -> None:
    code = "import conf, pipelines, tasks; print(conf.__file__, pipelines.__file__, tasks.__file__)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, env=environment).stdout
    assert {Path(path).parent.parent for path in printed.split()} == {ROOT}


@pytest.mark.parametrize("name", ["conf/__init__.py", "conf/config.yaml", "pipelines/commands/train.py", "tasks/detection.py"])
def test_the_wheel_holds(wheel: set[str], name: str) -> None:
    assert name in wheel


def test_the_wheel_holds_every_source_and_nothing_else(wheel: set[str]) -> None:
    ours = {name for name in wheel if ".dist-info/" not in name}
    files = [
        path
        for folder in ("conf", "pipelines", "tasks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml")
    ]
    assert ours == {str(path.relative_to(ROOT)) for path in files}


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    entries = locked(name)
    assert entries
    assert [key for key, entry in entries.items() if "==" not in key or "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_holds_no_address(name: str) -> None:
    assert re.findall(r"\S*(?:://|--(?:extra-)?index-url|--find-links|--trusted-host)\S*", (ROOT / name).read_text()) == []


def test_the_lock_satisfies_what_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    versions = {canonicalize_name(key.split("==")[0]): key.split("==")[1] for key in locked("requirements.lock")}
    requirements = [Requirement(line) for line in declared]
    wrong = [
        str(item)
        for item in requirements
        if not item.specifier.contains(versions[canonicalize_name(item.name)], prereleases=True)
    ]
    assert wrong == []
