"""What is installed is this tree, and the lock can be trusted."""

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import conf
import pipelines
import tasks

ROOT = Path(__file__).parent.parent
PACKAGES = ("conf", "pipelines", "tasks")
FOLDERS = (*PACKAGES, "benchmarks", "tests")
BESIDE = {"in_numpy"}  # lies beside an exported file's sample
INSTALLED = metadata.packages_distributions()
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
    entries = re.split(
        r"\n(?=[A-Za-z0-9])", re.sub(r"(?m)^\s*#.*\n", "", (ROOT / name).read_text())
    )
    return {entry.split()[0]: entry for entry in entries if entry.strip()}


@pytest.mark.parametrize("package", [conf, pipelines, tasks], ids=lambda package: package.__name__)
def test_packages_are_imported_from_this_tree(package: object) -> None:
    assert Path(str(package.__file__)).parent.parent == ROOT  # type: ignore[attr-defined]


def test_installed_packages_are_those_of_this_tree(tmp_path: Path) -> None:
    code = "import conf, pipelines, tasks; print(conf.__file__, pipelines.__file__, tasks.__file__)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(
        command, cwd=tmp_path, check=True, capture_output=True, text=True, env=environment
    ).stdout
    assert {Path(path).parent.parent for path in printed.split()} == {ROOT}


@pytest.mark.parametrize(
    "name",
    [
        "conf/__init__.py",
        "conf/config.yaml",
        "pipelines/commands/train.py",
        "pipelines/cluster/slurm.sh.template",
        "tasks/detection.py",
    ],
)
def test_the_wheel_holds(wheel: set[str], name: str) -> None:
    assert name in wheel


def test_the_wheel_holds_every_source_and_nothing_else(wheel: set[str]) -> None:
    # What `make tune` writes belongs to a machine; a test of it runs beside this one.
    ours = {name for name in wheel if ".dist-info/" not in name and "/tuned_" not in name}
    files = [
        path
        for folder in ("conf", "pipelines", "tasks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".template") and not path.name.startswith("tuned_")
    ]
    assert ours == {str(path.relative_to(ROOT)) for path in files}


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    entries = locked(name)
    assert entries
    assert [
        key for key, entry in entries.items() if "==" not in key or "--hash=sha256:" not in entry
    ] == []


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_holds_no_address(name: str) -> None:
    assert (
        re.findall(
            r"\S*(?:://|--(?:extra-)?index-url|--find-links|--trusted-host)\S*",
            (ROOT / name).read_text(),
        )
        == []
    )


def test_the_lock_satisfies_what_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    versions = {
        canonicalize_name(key.split("==")[0]): key.split("==")[1]
        for key in locked("requirements.lock")
    }
    requirements = [Requirement(line) for line in declared]
    wrong = [
        str(item)
        for item in requirements
        if not item.specifier.contains(versions[canonicalize_name(item.name)], prereleases=True)
    ]
    assert wrong == []


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    runtime = _names(project["dependencies"]) | _names([*extras["onnx"], *extras["dask"]])
    development = runtime | _names(project["optional-dependencies"]["dev"])
    undeclared = {
        f"{folder}: {module}"
        for folder in FOLDERS
        for module in _imported(folder)
        if not _distributions(module) & (runtime if folder in PACKAGES else development)
    }
    assert undeclared == set()


def test_what_is_declared_is_imported_or_says_why_it_is_there() -> None:
    imported = {
        name
        for folder in FOLDERS
        for module in _imported(folder)
        for name in _distributions(module)
    }
    text = (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[0]
    lines = re.findall(r'^    "([^"]+)",(.*)$', text, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert [
        line for line, _ in lines
    ] == declared  # One a line, so that each has room for a reason.
    assert [
        line for line, reason in lines if not _names([line]) & imported and "# " not in reason
    ] == []


def test_what_only_tests_import_is_not_asked_of_users() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    used = {
        name
        for folder in PACKAGES
        for module in _imported(folder)
        for name in _distributions(module)
    }
    tested = {
        name
        for folder in ("tests", "benchmarks")
        for module in _imported(folder)
        for name in _distributions(module)
    }
    assert _names(project["dependencies"]) & (tested - used) == set()


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


@functools.cache
def _imported(folder: str) -> set[str]:
    """Modules of others that the files of a folder import, wherever in the file."""
    nodes = (
        node
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
    )
    modules = {module for node in nodes for module in _modules(node)}
    return {
        module
        for module in modules
        if module.split(".")[0] not in {*FOLDERS, *sys.stdlib_module_names, *BESIDE}
    }


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def _distributions(module: str) -> set[str]:
    """Names of the installed distributions that a module is from; several share folders, and `google` is nobody's."""
    candidates = INSTALLED.get(module.split(".")[0], [])
    if not module.startswith("google."):
        return {canonicalize_name(name) for name in candidates}
    inside = f"{module.replace('.', '/')}/"
    holding = set()
    for name in candidates:
        files = metadata.files(name) or ()
        if any(str(file).startswith(inside) for file in files):
            holding.add(canonicalize_name(name))
    return holding
