"""Control groups of this process (a container, a batch job, a systemd unit), in which Linux limits what it may use."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MACHINE = Path("/")


def folders(controller: str, root: Path = MACHINE) -> Iterator[Path]:
    """The folders of every group from the process's own to the outermost in sight; any may be the narrowest.

    Args:
        controller: the kind of resource, as version 1 calls it: `cpu`, `memory`.
        root: holds `proc` and the mount points named in `proc/self/mountinfo`.
    """
    groups = dict(_own_groups(controller, root))
    for line in lines(root / "proc/self/mountinfo"):
        mount, _, source = line.partition(" - ")
        kind, _, options = [*source.split(), "", "", ""][:3]
        if kind not in ("cgroup", "cgroup2"):
            continue
        if kind == "cgroup" and controller not in options.split(","):
            continue
        inside, point = mount.split()[3:5]
        folder = root / point.lstrip("/")
        for path in _path_up(groups.get(kind, "/"), inside):
            yield folder / path


def lines(file: Path) -> list[str]:
    """The lines of a file of the kernel's; none where there is no such file."""
    return file.read_text().splitlines() if file.exists() else []


def _own_groups(controller: str, root: Path) -> Iterator[tuple[str, str]]:
    """The process's group in the one hierarchy of version 2, and in version 1's for this controller."""
    for line in lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield "cgroup2", path
        elif controller in controllers.split(","):
            yield "cgroup", path


def _path_up(group: str, mounted: str) -> list[PurePosixPath]:
    """The folders from a group's up to the mount point, where the group `mounted` is, relative to it."""
    path = PurePosixPath(group)
    if ".." in path.parts or not path.is_relative_to(mounted):
        # The group lies beyond the container's view, whose outermost one is the mount point.
        return [PurePosixPath()]
    inner = path.relative_to(mounted)
    return [inner, *inner.parents]
