"""What a source contains, as digests: unchanged files are recognised by size and time of change and not read again."""

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from etils import epath

from pipelines import config
from pipelines.config import Dataset, absolute
from pipelines.data import encoders, files, folders, locations
from pipelines.data.example import Reason
from pipelines.data.folders import Stat
from pipelines.system import durable
from pipelines.usage import UsageError

TOGETHER = 64  # files that one thread hashes in a row
AT_ONCE = 32  # remote files that are fetched at the same time
FORMAT = 4  # goes up when shards or manifest are laid out in another way

Digest = str
Unfit = dict[str, Reason]  # by path inside a location


@dataclass(frozen=True)
class Found:
    """A source: where its parts lie and what they contain, by field and split."""

    places: dict[str, dict[str, str]]
    digests: dict[str, dict[str, dict[str, Digest]]]  # by field, split and path inside
    unfit: dict[str, dict[str, Unfit]]  # what is neither file nor folder, likewise


class Digests:
    """SHA-256 of files, or what a store has for it.

    They are remembered in `<data_dir>/digests/` with the files' sizes and times of change.
    """

    def __init__(self, data_dir: str) -> None:
        self._folder = epath.Path(data_dir) / "digests"

    def of(self, place: str, named: Collection[str] = ()) -> tuple[dict[str, Digest], Unfit]:
        """Digests of the files at a place and what is unfit there, each by its path inside.

        Args:
            named: real paths of the folders into which links may lead.

        Raises:
            UsageError: there is nothing at that place.
        """
        listed = folders.contents(place, named)
        memory = self._memory(place)
        known: dict[str, list] = json.loads(memory.read_text()) if memory.exists() else {}
        stale: list[str] = []
        for name, stat in listed.files.items():
            if _is_stale(stat, known.get(name)):
                stale.append(name)
        if stale or len(known) != len(listed.files):
            fresh, unread = _digests(place, stale)
            listed.unfit.update(unread)
            entries: dict[str, list] = {}
            for name, stat in listed.files.items():
                if name not in unread:
                    sha256 = fresh.get(name) or known[name][2]
                    entries[name] = [*stat, sha256]
            known = entries
            self._remember(memory, known)
        digests = {name: entry[2] for name, entry in known.items()}
        return digests, listed.unfit

    def _memory(self, place: str) -> epath.Path:
        name = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return self._folder / f"{name}.json"

    def _remember(self, memory: epath.Path, known: dict[str, list]) -> None:
        durable.write_whole(memory, json.dumps(known))


def _is_stale(stat: Stat, known: list | None) -> bool:
    """Whether a file has to be read; a store that gives no stamp says nothing of a change."""
    return stat[1] == "" or known is None or known[:2] != stat


def _digests(place: str, names: Sequence[str]) -> tuple[dict[str, Digest], Unfit]:
    """Digests of files, and why there are none of those that cannot be read."""
    is_remote = files.is_remote(place)
    threads = AT_ONCE if is_remote else None
    together = 1 if is_remote else TOGETHER
    groups = [names[at : at + together] for at in range(0, len(names), together)]
    digests: dict[str, Digest] = {}
    unread: Unfit = {}
    with ThreadPoolExecutor(threads) as pool:
        for group_digests, group_unread in pool.map(lambda group: _read(place, group), groups):
            digests |= group_digests
            unread |= group_unread
    return digests, unread


def _read(place: str, names: Sequence[str]) -> tuple[dict[str, Digest], Unfit]:
    digests: dict[str, Digest] = {}
    unread: Unfit = {}
    for name in names:
        try:
            digests[name] = sha256(folders.path_of(place, name))
        except OSError as error:
            says = error.strerror or str(error)
            if not name:
                raise UsageError(f"{place}: {says}") from None
            unread[name] = ("file_unreadable", f"{says}; make it readable, or remove it")
    return digests, unread


def sha256(file: str) -> Digest:
    """Digest of a file's content."""
    with files.opened(file) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def digest(value: Any) -> Digest:
    """Digest of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def find(data_dir: str, dataset: Dataset) -> Found:
    """Looks at a source; files are hashed only where their size or time of change is new.

    Raises:
        UsageError: a part is missing or not given.
    """
    memory = Digests(absolute(data_dir))
    paths = locations.locate(data_dir, dataset)
    named = _named(dataset, paths)
    found = Found(paths, {}, {})
    for part, by_split in paths.items():
        found.digests[part] = {}
        found.unfit[part] = {}
        for split, path in by_split.items():
            digests, unfit = memory.of(path, named)
            found.digests[part][split] = digests
            found.unfit[part][split] = unfit
    return found


def _named(dataset: Dataset, paths: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Real paths of the local folders that the user has named: links of a source may lead into them."""
    given = [absolute(dataset.root)] if dataset.root else []
    for by_split in paths.values():
        given += by_split.values()
    named: set[str] = set()
    for path in given:
        start = folders.parted(path)[0] if folders.is_pattern(path) else path
        if not files.is_remote(start) and os.path.isdir(start):
            named.add(os.path.realpath(start))
    return sorted(named)


def by_place(found: Found) -> dict[str, dict[str, Digest]]:
    """One digest for each place of a source, by field and split, as the manifest holds them."""
    digests: dict[str, dict[str, Digest]] = {}
    for field, by_split in found.digests.items():
        digests[field] = {split: digest(files) for split, files in by_split.items()}
    return digests


def recipe(dataset: Dataset, version: int) -> Digest:
    """Digest over all that shapes a record beside the source's content.

    That is the data set's node, the task's version, the format, and the encoders that the records
    go through.
    """
    node = config.substance(asdict(dataset), config.RESULT)
    if node["repeat"] is None:
        del node["repeat"]  # Data are named as before there was such a field.
    used = encoders.used(dataset)
    return digest(
        {
            "format": FORMAT,
            "version": version,
            "node": node,
            "encoders": used,
        }
    )


def fingerprint(dataset: Dataset, version: int, found: Found) -> str:
    """Sixteen hexadecimal digits over the recipe and the source's content."""
    parts = [recipe(dataset, version), found.digests]
    # What is unfit is rejected by name, and so is part of what is built.
    if unfit := _codes(found.unfit):
        parts.append(unfit)
    return digest(parts)[:16]


def _codes(unfit: Mapping[str, Mapping[str, Unfit]]) -> dict[str, str]:
    """Codes of what is unfit, by field, split and path."""
    codes: dict[str, str] = {}
    for name, by_split in unfit.items():
        for split, reasons in by_split.items():
            for path, (code, _) in reasons.items():
                codes[f"{name} {split} {path}"] = code
    return codes
