"""Shards of earlier builds: taken over where nothing of them has changed, and a source of records where little has."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from etils import epath

from pipelines.data import checks, description, index, manifest, summary
from pipelines.data.summary import Summary
from pipelines.system import durable, tfrecord

MOSTLY = 0.9  # share of a shard's examples which makes an earlier one worth reading

Summaries = dict[str, dict[str, Any]]  # shards of a finished build, by file name


@dataclass(frozen=True)
class Made:
    """What an example has become."""

    record: tuple[bytes, ...]  # in its frame; empty where there is none
    counts: dict[str, Any]  # for the shard's summary


class Damaged(Exception):
    """Raised by an earlier shard that is not as it was written."""


class Earlier:
    """A shard of an earlier build, read once from its start to its end: only then is it known to be whole."""

    def __init__(self, content: IO[bytes], counted: Summary, lines: list[bytes]) -> None:
        self._lines = deque(lines)
        self._expected = counted.sha256
        self._records = tfrecord.framed(content)
        self._sha256 = hashlib.sha256()

    def take(self, head: bytes) -> Made | None:
        """What became of the example of this position and digest; they must be asked for in their order."""
        while self._lines and self._lines[0] < head:
            self._next()
        return self._next() if self._lines and self._lines[0].startswith(head) else None

    def _next(self) -> Made:
        counts = json.loads(self._lines.popleft()[index.HEAD :])
        record: tuple[bytes, ...] = ()
        if counts.get("examples"):
            try:
                record = next(self._records)
            except (StopIteration, ValueError) as error:
                raise Damaged from error
        for part in record:
            self._sha256.update(part)
        return Made(record, counts)

    def check_rest(self) -> None:
        """Reads on to the end.

        Raises:
            Damaged: the whole has not the SHA-256 that it was written with.
        """
        while self._lines:
            self._next()
        if self._sha256.hexdigest() != self._expected:
            raise Damaged


def builds(target: epath.Path) -> dict[epath.Path, Summaries]:
    """Summaries of the shards of finished builds, this one's own first, by their folders."""
    name = target.name.rsplit("-", 1)[0]
    folders = [file.parent for file in target.parent.glob(f"{name}-*/{summary.SHARDS}")]
    folders.sort(key=lambda folder: (folder != target, folder))
    return {folder: summary.finished(folder) for folder in folders}


@contextmanager
def opened(
    shard: str,
    heads: Collection[bytes],
    recipe: str,
    finished: Mapping[epath.Path, Summaries],
) -> Iterator[Earlier | None]:
    """The earlier shard of that name which has most of the examples, if one has nearly all.

    Args:
        heads: position and digest of each example that is wanted.
        recipe: what shaped the records beside their examples; of an earlier shard too.
    """
    wanted = set(heads)
    found: tuple[int, epath.Path, list[bytes]] | None = None
    for folder, summaries in finished.items():
        lines = _examples(folder / shard, summaries.get(shard), recipe)
        shared = sum(line[: index.HEAD] in wanted for line in lines)
        if shared and shared >= MOSTLY * len(heads) and (found is None or shared > found[0]):
            found = (shared, folder, lines)
    if found is None:
        yield None
        return
    _, folder, lines = found
    counted = summary.from_entry(finished[folder][shard])
    try:
        content = (folder / shard).open("rb")
    except FileNotFoundError:
        raise Damaged from None
    with content:
        yield Earlier(content, counted, lines)


def _examples(shard: epath.Path, entry: Mapping[str, Any] | None, recipe: str) -> list[bytes]:
    """The lines of a shard's examples; none where it was made by another recipe, or they are not what they were."""
    file = manifest.examples_file(shard)
    if not entry or not file.exists():
        return []
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry.get("listed"):
        return []
    lines = content.splitlines()
    total = sum(map(index.number_of, lines))
    return lines if index.inputs(recipe, total) == entry["inputs"] else []


def is_kept(
    target: epath.Path,
    shard: str,
    inputs: str,
    finished: Mapping[epath.Path, Summaries],
) -> bool:
    """Whether the shard is there: from this build interrupted or finished, or taken over from one of other content."""
    counted = summary.read(target, shard)
    if counted and counted.inputs == inputs and _is_whole(target, counted):
        return True
    for folder, summaries in finished.items():
        entry = summaries.get(shard)
        if not entry or entry["inputs"] != inputs:
            continue
        if _is_taken_over(folder, target, summary.from_entry(entry)):
            return True
    return False


def _is_whole(folder: epath.Path, counted: Summary) -> bool:
    """Whether a shard has the SHA-256 that it was written with; a build trusts no stamp."""
    return manifest.intact(folder, description.shard(counted), {})


def _is_taken_over(old: epath.Path, new: epath.Path, counted: Summary) -> bool:
    if not _is_whole(old, counted):
        return False
    if old != new:
        beside = checks.place(new, "")
        before = old / counted.file
        shard = new / counted.file
        _link(before, shard, beside)
        for listed in (manifest.lengths_file, manifest.examples_file):
            if listed(before).exists():
                _link(listed(before), listed(shard), beside)
    summary.write(counted, new)
    return True


def _link(old: epath.Path, new: epath.Path, beside: epath.Path) -> None:
    partial = durable.partial(new, beside)
    partial.unlink(missing_ok=True)
    try:
        os.link(old, partial)
    except OSError:
        old.copy(partial, overwrite=True)
    partial.replace(new)
