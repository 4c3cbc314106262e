"""What lies at a place: files with size and time of change, and what cannot be taken for one, each by its name.

Links are followed where they lead into a folder that the user has named. One that leads elsewhere, nowhere or in a
circle is unfit, and so is what is neither file nor folder. Names that start with a dot are left out.
"""

import errno
import glob
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field

from pipelines.data import files
from pipelines.data.example import Reason
from pipelines.outside import printable
from pipelines.usage import UsageError

Stat = list[int | str]
ESCAPES = "path_escapes"


@dataclass
class Contents:
    """What lies at a place, by its path inside: files with their size and time of change; code and advice of the unfit."""

    files: dict[str, Stat] = field(default_factory=dict)
    unfit: dict[str, Reason] = field(default_factory=dict)

    def ordered(self) -> "Contents":
        """The same, sorted by path."""
        files = dict(sorted(self.files.items()))
        unfit = dict(sorted(self.unfit.items()))
        return Contents(files, unfit)


def contents(place: str, named: Collection[str]) -> Contents:
    """Lists a folder, the files behind a pattern, or a file itself, under the empty name.

    Args:
        named: real paths of the folders into which links may lead.

    Raises:
        UsageError: there is nothing at that place.
    """
    if files.is_remote(place):
        return Contents(dict(files.listed(place)))
    if os.path.isfile(place):
        return Contents({"": _stat(os.stat(place))})
    if os.path.isdir(place):
        walk = _Walk(place, named)
        walk.folder("", os.path.realpath(place), ())
        return walk.contents.ordered()
    if is_pattern(place):
        return _matched(place, named)
    if os.path.islink(place):
        target = printable(os.readlink(place))
        raise UsageError(f"{place}: the link leads nowhere ({target})")
    raise UsageError(f"{place}: there is no such file or folder")


def is_pattern(place: str) -> bool:
    """Whether a place is a pattern; what exists under a name with brackets is what exists."""
    if files.is_remote(place) or not glob.has_magic(place):
        return False
    return not os.path.exists(place)


def path_of(place: str, name: str) -> str:
    """Path of what `contents` found in a folder, behind a pattern, or as the place itself."""
    folder = parted(place)[0] if is_pattern(place) else place
    return os.path.join(folder, name) if name else place


def parted(pattern: str) -> tuple[str, str]:
    """The folder in which an absolute pattern starts, and the rest of it.

    A part that exists as it is is no pattern.
    """
    folder = "/"
    rest = pattern.strip("/").split("/")
    while len(rest) > 1:
        inner = os.path.join(folder, rest[0])
        if glob.has_magic(rest[0]) and not os.path.isdir(inner):
            break
        folder = inner
        rest.pop(0)
    return folder, "/".join(rest)


def _matched(pattern: str, named: Collection[str]) -> Contents:
    folder, rest = parted(pattern)
    walk = _Walk(folder, named)
    real = os.path.realpath(folder)
    for name in glob.glob(rest, root_dir=folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            advice = "the pattern matches a folder; let it match files alone"
            walk.refuse(name, "not_a_file", advice)
            continue
        is_link = os.path.realpath(path) != os.path.join(real, name)
        walk.file(name, path, is_link=is_link)
    return walk.contents.ordered()


def _stat(status: os.stat_result) -> Stat:
    return [status.st_size, status.st_mtime_ns]


def is_inside(path: str, folders: Collection[str]) -> bool:
    """Whether a real path lies in one of the folders, or is one."""
    return any(f"{path}/".startswith(folder.rstrip("/") + "/") for folder in folders)


class _Walk:
    """One folder, listed to its depths."""

    def __init__(self, root: str, named: Collection[str]) -> None:
        self.contents = Contents()
        self._root = root
        self._named = [os.path.realpath(root), *named]

    def refuse(self, name: str, code: str, advice: str) -> None:
        self.contents.unfit[name] = (code, advice)

    def folder(
        self,
        inside: str,
        real: str,
        entered: tuple[str, ...],
    ) -> None:
        """Lists a folder; `entered` are the real folders that the links on the way to it were in."""
        try:
            with os.scandir(os.path.join(self._root, inside)) as scan:
                entries = [entry for entry in scan if not entry.name.startswith(".")]
        except OSError as error:
            if not inside:
                raise UsageError(f"{self._root}: {error.strerror}") from None
            self.refuse(
                inside, "folder_unreadable", f"{error.strerror}; make it readable, or remove it"
            )
            return
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_symlink():
                self._link(name, entry.path, real, entered)
            elif entry.is_dir(follow_symlinks=False):
                self.folder(
                    name,
                    os.path.join(real, entry.name),
                    entered,
                )
            else:
                self.file(name, entry.path, is_link=False)

    def _link(
        self,
        name: str,
        path: str,
        real: str,
        entered: tuple[str, ...],
    ) -> None:
        if not os.path.isdir(path):
            self.file(name, path, is_link=True)
            return
        target = os.path.realpath(path)
        if not is_inside(target, self._named):
            self.refuse(name, ESCAPES, _outside("folder", target))
        elif any(is_inside(folder, [target]) for folder in (*entered, real)):
            says = f"the link leads back to {printable(target)}, which it is in"
            self.refuse(name, "link_loop", f"{says}; remove it")
        else:
            self.folder(name, target, (*entered, real))

    def file(self, name: str, path: str, *, is_link: bool) -> None:
        """Notes a file, or why it is none."""
        try:
            status = os.stat(path)
        except OSError as error:
            self.refuse(name, *_unreachable(path, error))
            return
        if is_link:
            target = os.path.realpath(path)
            if not is_inside(target, self._named):
                self.refuse(name, ESCAPES, _outside("file", target))
                return
        if not stat.S_ISREG(status.st_mode):
            says = "it is neither a file nor a folder (a pipe, a socket, a device)"
            self.refuse(name, "not_a_file", f"{says}; remove it")
            return
        self.contents.files[name] = _stat(status)


def _outside(kind: str, target: str) -> str:
    return (
        f"the link leads to the {kind} {printable(target, 200)}, outside the folders that are named; copy it here, "
        "or name a folder that holds both: dataset.root=<folder>"
    )


def _unreachable(path: str, error: OSError) -> tuple[str, str]:
    if error.errno == errno.ELOOP:
        return "link_loop", "the link leads to itself; remove it, or let it lead to the file"
    if os.path.islink(path):
        leads = printable(os.readlink(path), 200)
        return (
            "link_broken",
            f"the link leads to {leads}, where nothing can be read; bring that back, or remove the link",
        )
    return "file_unreadable", f"{error.strerror}; make it readable, or remove it"
