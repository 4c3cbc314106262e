"""A project of the user's own: a folder of YAML beside `conf/`, and modules that ours are told the names of.

The folder is what TRELLIS_CONF names; modules are found as Python finds them, by its path or installed.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pipelines.system import git
from pipelines.system.processes import MODULE_PATH
from pipelines.usage import UsageError

VARIABLE = "TRELLIS_CONF"


def folder() -> Path | None:
    """The user's own folder of configuration; None: there is none.

    Raises:
        UsageError: the variable names no folder.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    path = Path(named).expanduser().absolute()
    if not path.is_dir():
        raise UsageError(
            f"{VARIABLE}: there is no folder {path}; name one with experiment/, dataset/, … in it"
        )
    return path


def choices(ours: Path, group: str) -> dict[str, Path]:
    """Files of a group by the name that chooses them, ours and the user's own.

    Raises:
        UsageError: one of the user's own has the name of one of ours.
    """
    files = _files(ours / group)
    place = folder()
    added = _files(place / group) if place else {}
    for name in sorted(files.keys() & added.keys()):
        raise UsageError(
            f"{VARIABLE}: {added[name]} has the name of one of ours, {group}={name}; rename it"
        )
    return dict(sorted({**files, **added}.items()))


def new_file(ours: Path, group: str, name: str) -> Path:
    """Where a new choice of a group is written: in the user's own folder, where there is one."""
    place = (folder() or ours) / group
    place.mkdir(exist_ok=True)
    return place / f"{name}.yaml"


def _files(place: Path) -> dict[str, Path]:
    named = {}
    for file in place.rglob("*.yaml"):
        name = file.relative_to(place).with_suffix("")
        named[str(name)] = file
    return named


def modules(names: Iterable[str]) -> dict[str, list[Path]]:
    """Files of the packages or modules among these that nobody has installed, by the first word of their names."""
    found = {}
    for name in sorted({name.partition(".")[0] for name in names}):
        files = list(_files_of(name))
        if files:
            found[name] = files
    return found


def _files_of(name: str) -> Iterator[Path]:
    if name in sys.stdlib_module_names:
        return
    installed = Path(sysconfig.get_path("purelib"))
    for path in _places(name):
        if path.is_relative_to(installed):
            continue  # Installed modules count by their version.
        if path.is_dir():
            yield from sorted(path.rglob("*.py"))
        else:
            yield path


def _places(name: str) -> list[Path]:
    """The folders of a package, or the file of a module."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return []
    paths = spec.submodule_search_locations or [spec.origin or ""]
    return [Path(path) for path in paths]


def imported(name: str, setting: str) -> ModuleType:
    """A module of the user's own.

    Args:
        setting: what names it, for the message.

    Raises:
        UsageError: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"{setting}: {name} cannot be imported ({error}); is the folder that holds it on {MODULE_PATH}?"
        ) from error


def digest(files: Iterable[Path]) -> str:
    """Names the content of files, and how they lie to each other as far as two folders up."""
    total = hashlib.sha256()
    for file in files:
        if file.is_file():
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            # Not the whole path: the same files may lie elsewhere.
            name = "/".join(file.parts[-3:])
            total.update(f"{name}\n{content}\n".encode())
    return total.hexdigest()[:16]


def describe(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What is known of the user's own folder, and of these modules as far as they are the user's own."""
    described = {}
    place = folder()
    if place:
        described[VARIABLE] = _described(place, sorted(place.rglob("*.yaml")))
    for name, files in modules(names).items():
        described[name] = _described(files[0].parent, files)
    return described


def _described(place: Path, files: list[Path]) -> dict[str, Any]:
    """Where files lie, their digest, and the commit that has them; `dirty` where it has not."""
    found = {"folder": str(place), "digest": digest(files), "commit": None, "dirty": True}
    try:
        commit = git.run(place, "rev-parse", "HEAD").strip()
        changed = git.run(place, "status", "--porcelain", "--", *map(str, files))
        tracked = git.run(place, "ls-files", "--", *map(str, files)).splitlines()
    except git.GitError:
        return found
    is_whole = not changed and len(tracked) == len(files)
    return {**found, "commit": commit, "dirty": not is_whole}


def refuse_others(recorded: dict[str, dict[str, Any]]) -> None:
    """Refuses modules that are not those a run was trained with.

    Args:
        recorded: as `describe` gave it then.

    Raises:
        UsageError: one is absent or another, with where it was.
    """
    for name, then in recorded.items():
        if name == VARIABLE:
            continue  # A recorded configuration is whole: nothing is read from there again.
        files = modules([name]).get(name)
        commit = f", commit {then['commit'][:12]}" if then["commit"] else ""
        was = f"the run's lay in {then['folder']}{commit}"
        if files is None:
            raise UsageError(
                f"imports: {name} is not here; {was}; put the folder that holds it on {MODULE_PATH}"
            )
        if digest(files) != then["digest"]:
            raise UsageError(f"imports: {name} is other code than the run was trained with; {was}")
