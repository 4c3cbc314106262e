"""The index of a build: one line per example on disk, so that only positions travel through Beam's shuffle."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

from etils import epath

from pipelines.config import UsageError
from pipelines.data import sources
from pipelines.data.sources import Example, Reject

SHARD_BYTES = 64 * 2**20
SHARD_EXAMPLES = 256
SMALL_SHARDS = 8  # a small split is divided up to so many times, for the input pipeline and the cores


@dataclass
class Index:
    """Where the index lies, and what each shard is made from."""

    folder: str
    shards: dict[str, str] = field(default_factory=dict)  # digest over a shard's inputs, by file name
    examples: dict[str, int] = field(default_factory=dict)  # by split
    rejects: list[Reject] = field(default_factory=list)  # found before an image was read

    def file(self, split: str) -> epath.Path:
        """The lines of one split."""
        return epath.Path(self.folder) / f"{split}.jsonl"


def write(folder: str, items: Iterable[Example | Reject], shards: Mapping[str, int] | None) -> Index:
    """Writes the index of a build.

    Args:
        shards: count by split; None decides by size.
    """
    index = Index(folder)
    epath.Path(folder).mkdir(parents=True, exist_ok=True)
    files, seen, sizes = {}, {}, {}
    for item in items:
        if isinstance(item, Reject):
            index.rejects.append(item)
            continue
        position = sources.position(item.key)
        if position in seen.setdefault(item.split, set()):
            index.rejects.append(Reject(item.split, item.name, item.key, "duplicate_key", "an example with this key is there already; remove one"))
            continue
        seen[item.split].add(position)
        if item.split not in files:
            files[item.split] = index.file(item.split).open("w")
        files[item.split].write(json.dumps(asdict(item)) + "\n")
    for split, file in files.items():
        file.close()
        index.examples[split] = len(seen[split])
        sizes[split] = index.file(split).stat().length
    for split in sorted(files):
        count = (shards or {}).get(split) or _count(index.examples[split])
        _add_shards(index, split, count)
    return index


def _count(examples: int) -> int:
    """A power of two, so that a data set that grows a little keeps its shards."""
    wanted = min(max(1, examples // SHARD_EXAMPLES), SMALL_SHARDS)
    wanted = max(wanted, examples // 4096)
    return 1 << (wanted - 1).bit_length()


def _add_shards(index: Index, split: str, count: int) -> None:
    # A sum of digests does not depend on the order of the input.
    sums = [0] * count
    for example in read(index.file(split)):
        sums[sources.position(example.key) % count] += int(sources.digest(example.key, example.content), 16)
    for number, total in enumerate(sums):
        index.shards[shard_name(split, number, count)] = sources.digest(str(total))


def shard_name(split: str, number: int, count: int) -> str:
    """File name of one shard."""
    return f"{split}-{number:05d}-of-{count:05d}.tfrecord"


def read(file: epath.Path) -> Iterator[Example]:
    """The examples of one split, in the order they were listed."""
    with file.open() as lines:
        for line in lines:
            yield parse(line)


def parse(line: str) -> Example:
    """One line of an index."""
    return Example(**json.loads(line))


def require_examples(index: Index, name: str) -> None:
    """Stops where nothing is left to build.

    Raises:
        UsageError: no example at all, or none to train on.
    """
    if not index.examples.get("train"):
        reasons = ", ".join(sorted({reject.code for reject in index.rejects})) or "the source is empty"
        raise UsageError(f"dataset {name}: no example to train on ({reasons})")
