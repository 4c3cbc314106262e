"""What was built: splits, shards, labels, counts. A manifest is written last, its existence proves the data."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from etils import epath

from pipelines import config
from pipelines.config import Dataset, absolute
from pipelines.data import checks, content, locations
from pipelines.data.checks import Stamp
from pipelines.outside import printable
from pipelines.system import tfrecord
from pipelines.usage import UsageError, make_command

FILE = "manifest.json"
REJECTS = "rejects.jsonl"
LENGTHS = ".lengths"  # ends a file beside each shard: bytes of its records, in order, as little-endian uint32
EXAMPLES = ".examples"  # likewise: a line for each of its examples, with what is counted of it
LISTS = (LENGTHS, EXAMPLES)


@dataclass(frozen=True)
class Shard:
    """One TFRecord file; `inputs` is a digest over what it was made from."""

    file: str
    examples: int
    bytes: int
    sha256: str
    inputs: str = ""


@dataclass(frozen=True)
class Split:
    """One split, its shards in order."""

    examples: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Manifest:
    """A built data set. Equal data have equal manifests: no times, no places, no runner."""

    dataset: str
    fingerprint: str
    task: str
    version: int  # the task's VERSION
    labels: tuple[str, ...]  # without a background that the task adds itself
    splits: dict[str, Split]
    formats: tuple[str, ...] = ()  # image formats that occur
    has_masks: bool = False
    counts: dict[str, int] = field(default_factory=dict)  # read, written, rejected, clipped
    classes: dict[str, dict[str, int]] = field(
        default_factory=dict
    )  # objects, images or pixels by split and label
    rejects: dict[str, int] = field(
        default_factory=dict
    )  # by reason code; each one in rejects.jsonl
    image_sizes: dict[str, int] = field(
        default_factory=dict
    )  # images by "width x height", rounded to 32
    box_sizes: dict[str, int] = field(
        default_factory=dict
    )  # objects by square root of area, in pixels
    warnings: tuple[str, ...] = ()
    source: dict[str, Any] = field(default_factory=dict)  # kind, file names, digests
    encoders: dict[str, str] = field(
        default_factory=dict
    )  # digest of a probe, by encoder that the records went through
    versions: dict[str, str] = field(default_factory=dict)
    directory: str = field(default="", compare=False)  # where it lies; not written

    def patterns(self) -> dict[str, str]:
        """Glob pattern of the shards, by split."""
        return {
            split: str(epath.Path(self.directory) / f"{split}-*.tfrecord") for split in self.splits
        }

    def shards(self) -> list[Shard]:
        """The shards of all splits."""
        shards: list[Shard] = []
        for split in self.splits.values():
            shards += split.shards
        return shards

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        document = asdict(self)
        del document["directory"]
        return json.dumps(document, indent=1) + "\n"


def from_json(text: str, directory: str = "") -> Manifest:
    """Reads back what `to_json` wrote."""
    document = json.loads(text)
    for name in ("labels", "formats", "warnings"):
        document[name] = tuple(document[name])
    splits: dict[str, Split] = {}
    for name, split in document["splits"].items():
        shards = [Shard(**shard) for shard in split["shards"]]
        splits[name] = Split(split["examples"], tuple(shards))
    document["splits"] = splits
    document["directory"] = directory
    return Manifest(**document)


def load(directory: str) -> Manifest:
    """Reads the manifest of a built data set.

    Raises:
        UsageError: there is none.
    """
    file = epath.Path(directory) / FILE
    if not file.exists():
        raise UsageError(
            f"{directory}: no {FILE} here; build the data with: make data DATA=<dataset>"
        )
    return from_json(file.read_text(), str(directory))


def find(
    data_dir: str,
    dataset: Dataset,
    version: int,
) -> Manifest | None:
    """The data set as built from the source as it is now; None where it has not been built.

    Imports neither Beam nor TensorFlow; files of the source are hashed only when their size or time changed.

    Args:
        version: VERSION of the data set's task.

    Raises:
        UsageError: it was built, and a shard is missing or has another size.
    """
    if dataset.embedded and not locations.is_whole(locations.embedded_folder(data_dir, dataset)):
        return None
    found = content.find(data_dir, dataset)
    built = load_if_built(directory(data_dir, dataset, version, found))
    if built is None:
        return None
    for shard in damaged(built):
        file = epath.Path(built.directory) / shard.file
        repair = command(data_dir, dataset)
        raise UsageError(f"{file} is missing or damaged; to repair it: {repair}")
    return built


def command(data_dir: str, dataset: Dataset) -> str:
    """The command, as it can be typed, that builds or repairs a data set."""
    overrides = [f"dataset={dataset.name}"]
    plain: Dataset | None = Dataset()
    if dataset.name in config.options("dataset"):
        plain = config.compose(overrides).dataset
    for name in Dataset.__dataclass_fields__:
        value = getattr(dataset, name)
        if value != getattr(plain, name):
            overrides.append(f"dataset.{name}={_spelled(value)}")
    overrides.append(f"data_dir={_spelled(absolute(data_dir))}")
    return make_command("data", overrides)


def _spelled(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[\w./+:@-]*[/.][\w./+:@-]*", value)
    return str(value) if plain else config.override_value(value)


def directory(
    data_dir: str,
    dataset: Dataset,
    version: int,
    found: content.Found,
) -> str:
    """Where a data set lies, or will lie, as built from a source as it was found."""
    return str(
        epath.Path(absolute(data_dir))
        / f"{dataset.name}-{content.fingerprint(dataset, version, found)}"
    )


def load_if_built(directory: str) -> Manifest | None:
    """The manifest in a directory, or None."""
    file = epath.Path(directory) / FILE
    return load(directory) if file.exists() else None


def damaged(built: Manifest, *, thorough: bool = False) -> list[Shard]:
    """Shards that are not as they were written.

    Args:
        thorough: read every shard; else those whose size or times are not the ones that were noted.
    """
    folder = epath.Path(built.directory)
    stamps = {} if thorough else checks.read(folder).stamps
    return [shard for shard in built.shards() if not intact(folder, shard, stamps)]


def intact(
    folder: epath.Path,
    shard: Shard,
    stamps: Mapping[str, Stamp],
) -> bool:
    """Whether a shard and the list of its lengths are as they were written.

    Both are read unless they have their stamps.
    """
    try:
        now = stamps_of(folder, shard)
        sizes = [stamp[0] for stamp in now.values()]
        if sizes != [shard.bytes, 4 * shard.examples]:
            return False
        if all(stamps.get(name) == stamp for name, stamp in now.items()):
            return True
        sha256 = content.sha256(str(folder / shard.file))
        return sha256 == shard.sha256 and _lengths_fit(folder, shard)
    except FileNotFoundError:
        return False


def stamps_of(folder: epath.Path, shard: Shard) -> dict[str, Stamp]:
    """Stamps of a shard and of the list of its lengths.

    Raises:
        FileNotFoundError: one of them is missing.
    """
    file = folder / shard.file
    lengths = lengths_file(file)
    return {file.name: checks.stamp(file), lengths.name: checks.stamp(lengths)}


def stamps(built: Manifest) -> dict[str, Stamp]:
    """Stamps of all shards and lengths of a data set that is whole."""
    folder = epath.Path(built.directory)
    stamps: dict[str, Stamp] = {}
    for shard in built.shards():
        stamps |= stamps_of(folder, shard)
    return stamps


def lengths_file(shard: epath.Path) -> epath.Path:
    """Where the lengths of a shard's records are listed."""
    return checks.place(shard.parent, shard.name + LENGTHS)


def examples_file(shard: epath.Path) -> epath.Path:
    """Where the examples are listed that a shard was made from."""
    return checks.place(shard.parent, shard.name + EXAMPLES)


def _lengths_fit(folder: epath.Path, shard: Shard) -> bool:
    listed = lengths_file(folder / shard.file).read_bytes()
    with (folder / shard.file).open("rb") as records:
        return tfrecord.as_bytes(tfrecord.lengths(records)) == listed


def check_rejects(built: Manifest, allowed: float) -> None:
    """Stops where more was rejected than is allowed.

    Raises:
        UsageError: with the commonest reasons, the file that lists every reject, and the option that allows them.
    """
    counts = Counter(built.counts)
    objects = counts["objects_rejected"] + counts["objects_of_rejected_examples"]
    lost = {
        "examples": (counts["examples_rejected"], counts["examples_read"]),
        "objects": (objects, counts["objects_read"]),
    }
    largest = 0.0
    said: list[str] = []
    for kind, (rejected, read) in lost.items():
        share = rejected / max(1, read)
        largest = max(largest, share)
        if rejected:
            said.append(f"{share:.1%} of the {kind} ({rejected} of {read})")
    if largest <= allowed:
        return
    option = "dataset.max_reject_fraction"
    lines = [f"{' and '.join(said)} were rejected, {option} allows {allowed:.1%}:"]
    lines += [f"  {line}" for line in describe_rejects(built)]
    lines.append(f"to build without them, add to the command: {option}={_rounded_up(largest)}")
    raise UsageError("\n".join(lines))


def _rounded_up(share: float) -> float:
    return min(1.0, int(share * 100 + 1) / 100)


def describe_rejects(built: Manifest, most: int = 5) -> list[str]:
    """Lines that say what was rejected.

    They are the commonest reasons, each with its first case, and where all of them are listed.
    """
    if not built.rejects:
        return []
    file = epath.Path(built.directory) / REJECTS
    cases = _first_cases(file, len(built.rejects))
    lines: list[str] = []
    for code, count in Counter(built.rejects).most_common(most):
        lines.append(f"{count} {code}, as {cases[code]}")
    if len(built.rejects) > most:
        lines.append(f"and {len(built.rejects) - most} more reasons")
    lines.append(f"each with what to do: {file}")
    return lines


def _first_cases(file: epath.Path, count: int) -> dict[str, str]:
    """The first case of each code in a list of rejects; `count` is how many codes there are."""
    cases: dict[str, str] = {}
    with file.open() as lines:
        for line in lines:
            reject = json.loads(line)
            name = printable(reject["file"])
            record = printable(reject["record"])
            advice = printable(reject["advice"], 400)
            cases.setdefault(reject["code"], f"{name} record {record}: {advice}")
            if len(cases) == count:
                break
    return cases
