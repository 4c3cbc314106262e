"""The index of a build: one line per example on disk, so that only positions travel through Beam's shuffle.

It is read again where shards are known, where positions are listed, and where a shard is written:
lines are small and images are not.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO

from etils import epath

from pipelines.data import keys
from pipelines.data.example import Example, Reason, Reject
from pipelines.outside import printable
from pipelines.usage import UsageError, file_name

SHARD_EXAMPLES = 256
SMALL_SHARDS = (
    8  # a small split is divided up to so many times, for the input pipeline and the cores
)
LARGE_SHARD_EXAMPLES = 2048
DIGITS = 20  # a line begins with a position of so many
HEAD = DIGITS + 64  # with a digest behind it
DUPLICATE = ("duplicate_key", "an example with this key is there already; remove one")


@dataclass
class Index:
    """Where the index lies, and what each shard is made from."""

    folder: str
    shards: dict[str, str] = field(
        default_factory=dict
    )  # digest over a shard's inputs, by file name
    examples: dict[str, int] = field(default_factory=dict)  # by split
    rejects: list[Reject] = field(default_factory=list)  # found before an image was read
    recipe: str = ""  # digest over all that shapes a record beside its example

    def file(self, split: str) -> epath.Path:
        """The lines of one split."""
        return epath.Path(self.folder) / f"{file_name(split, 'split')}.jsonl"


def no_objects(example: Example) -> int:
    """Stands for a count where there is nothing to count."""
    return 0


def write(
    folder: str,
    items: Iterable[Example | Reject],
    shards: Mapping[str, int] | None,
    recipe: str,
    objects: Callable[[Example], int] = no_objects,
) -> Index:
    """Writes the index of a build.

    Args:
        shards: count by split; what is absent is decided by the number of examples.
        recipe: digest over all that shapes a record beside its example.
        objects: how many objects go with an example that is rejected here.

    Raises:
        UsageError: there is nothing to train on.
    """
    index = Index(folder, recipe=recipe)
    epath.Path(folder).mkdir(parents=True, exist_ok=True)
    files: dict[str, IO[str]] = {}
    positions: dict[str, set[int]] = {}
    with ExitStack() as opened:
        for item in items:
            if isinstance(item, Reject):
                index.rejects.append(item)
                continue
            split = item.split
            refusal = _refusal(item, positions.setdefault(split, set()))
            if refusal:
                reject = Reject(
                    split,
                    item.name,
                    item.key,
                    *refusal,
                    objects=objects(item),
                )
                index.rejects.append(reject)
                continue
            if split not in files:
                files[split] = opened.enter_context(index.file(split).open("w"))
            files[split].write(_line(item))
    index.examples = {split: len(positions[split]) for split in sorted(files)}
    if not index.examples.get("train"):
        raise _empty(index.rejects)
    for split, examples in index.examples.items():
        count = (shards or {}).get(split) or shard_count(examples)
        _add_shards(index, split, count)
    return index


def _refusal(example: Example, positions: set[int]) -> Reason | None:
    """Why an example is left out; `positions` are those of its split, and take up its own."""
    position = keys.position(example.key)
    if not (keys.is_text(example.key) and keys.is_text(example.name)):
        return keys.NOT_TEXT
    if position in positions:
        return DUPLICATE
    positions.add(position)
    return None


def _empty(rejects: Sequence[Reject]) -> UsageError:
    """What to say where there is nothing to train on."""
    codes = sorted({reject.code for reject in rejects})
    lines = [f"no example to train on: {', '.join(codes) or 'the source is empty'}"]
    for reject in rejects[:3]:
        lines.append(f"{printable(reject.file)}: {printable(reject.advice, 400)}")
    return UsageError("\n".join(lines))


def shard_count(examples: int) -> int:
    """A power of two, so that a data set that grows a little keeps its shards."""
    wanted = max(
        min(examples // SHARD_EXAMPLES, SMALL_SHARDS),
        examples // LARGE_SHARD_EXAMPLES,
        1,
    )
    return 1 << (wanted - 1).bit_length()


def _add_shards(
    index: Index,
    split: str,
    count: int,
) -> None:
    sums = [0] * count
    with index.file(split).open("rb") as lines:
        for line in lines:
            sums[position(line) % count] += number_of(line)
    for number, total in enumerate(sums):
        name = shard_name(split, number, count)
        index.shards[name] = inputs(index.recipe, total)


def inputs(recipe: str, total: int) -> str:
    """Digest over what a shard is made from: a sum of numbers does not depend on the order of the input."""
    return keys.joint_digest(recipe, str(total))


def number_of(line: bytes) -> int:
    """The digest of the example in a line, as a number."""
    return int(line[DIGITS:HEAD], 16)


def shard_name(split: str, number: int, count: int) -> str:
    """File name of one shard."""
    return f"{file_name(split, 'split')}-{number:05d}-of-{count:05d}.tfrecord"


def split_of(shard: str) -> str:
    """The split that a shard's name begins with."""
    return shard.rsplit("-", 3)[0]


def _line(example: Example) -> str:
    """An example behind its position and a digest of it, which are asked for more often than the rest."""
    sha256 = keys.joint_digest(
        example.key,
        example.name,
        example.content,
    )
    return f"{keys.position(example.key):0{DIGITS}d}{sha256}{json.dumps(vars(example))}\n"


def position(line: bytes) -> int:
    """The hash of the key of the example in a line."""
    return int(line[:DIGITS])


def parse(line: bytes) -> Example:
    """The example in a line of an index."""
    return Example(**json.loads(line[HEAD:]))
