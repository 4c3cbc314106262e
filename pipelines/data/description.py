"""What a manifest says of a data set: what was read, written and rejected, and what is odd about it."""

import importlib.metadata
import itertools
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from etils import epath

from pipelines.config import Dataset
from pipelines.data import content, encoders, index, manifest, sources, summary
from pipelines.data.example import Reject
from pipelines.data.index import Index
from pipelines.data.listing import Listing
from pipelines.data.manifest import Manifest, Shard, Split
from pipelines.data.summary import Summary
from pipelines.outside import printable, redacted

LONGEST = 1000  # characters of one field of a reject
NAMED = 10  # classes in one warning
BALANCE = 100  # times as many of the commonest class as of the rarest


@dataclass(frozen=True)
class Commission:
    """What is asked for, whether it is then built or adopted: a data set, for a task, in a folder."""

    dataset: Dataset
    task: ModuleType
    target: epath.Path
    found: content.Found
    runner: dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """What a data set comes from."""

    commission: Commission
    listing: Listing
    listed: Index


def describe(origin: Origin, summaries: list[Summary]) -> Manifest:
    """The manifest of a data set with shards of these summaries."""
    commission = origin.commission
    dataset = commission.dataset
    by_split = _by_split(origin.listed, summaries)
    classes = {split: summary.total(shards, "classes") for split, shards in by_split.items()}
    rejects = rejects_of(origin.listed, summaries)
    codes = Counter(reject.code for reject in rejects)
    versions = {name: importlib.metadata.version(name) for name in ("trellis", "apache-beam")}
    return Manifest(
        dataset=dataset.name,
        fingerprint=commission.target.name.rsplit("-", 1)[1],
        task=dataset.task,
        version=commission.task.VERSION,
        labels=origin.listing.labels,
        splits={split: _split(shards) for split, shards in by_split.items()},
        formats=tuple(summary.total(summaries, "formats")),
        has_masks=origin.listing.has_masks,
        counts=_counts(
            origin.listing,
            origin.listed,
            summaries,
            rejects,
        ),
        classes=classes,
        rejects=dict(sorted(codes.items())),
        image_sizes=summary.total(summaries, "image_sizes"),
        box_sizes=summary.total(summaries, "box_sizes"),
        warnings=_warnings(origin, by_split),
        source={"kind": dataset.source, "digests": content.by_place(commission.found)},
        encoders=encoders.used(dataset),
        versions=versions | encoders.libraries(),
        directory=str(commission.target),
    )


def _by_split(listed: Index, summaries: list[Summary]) -> dict[str, list[Summary]]:
    by_split: dict[str, list[Summary]] = {split: [] for split in listed.examples}
    for counted in summaries:
        by_split[index.split_of(counted.file)].append(counted)
    return by_split


def shard(counted: Summary) -> Shard:
    """A shard as the manifest lists it."""
    return Shard(
        counted.file,
        counted.examples,
        counted.bytes,
        counted.sha256,
        counted.inputs,
    )


def _split(summaries: list[Summary]) -> Split:
    examples = sum(counted.examples for counted in summaries)
    return Split(examples, tuple(shard(counted) for counted in summaries))


def require_all(source: str, listing: Listing, listed: Index, summaries: list[Summary]) -> None:
    """Checks that all that was read was written or rejected: examples and objects, counted apart from each other."""
    rejects = rejects_of(listed, summaries)
    counts = _counts(listing, listed, summaries, rejects)
    lost = counts["examples_rejected"]
    objects_ended = (
        counts["objects_written"]
        + counts["objects_rejected"]
        + counts["objects_of_rejected_examples"]
    )
    indexed = sum(listed.examples.values())
    met = sum(counted.examples_read for counted in summaries)
    _require(
        source,
        "examples",
        counts["examples_read"],
        counts["examples_written"] + lost,
    )
    _require(source, "indexed examples", indexed, met)
    _require(source, "objects", counts["objects_read"], objects_ended)


def _require(source: str, kind: str, read: int, ended: int) -> None:
    if read != ended:
        raise RuntimeError(
            f"internal error in source {source}: {read} {kind} were read, {ended} were written or rejected; "
            "nothing is built from them. Please report this, with the data set if you can"
        )


def _counts(
    listing: Listing, listed: Index, summaries: list[Summary], rejects: list[Reject]
) -> dict[str, int]:
    lost = [reject for reject in rejects if reject.whole]
    objects_read = listing.tally.objects
    # Read on workers, but for those that went with what the listing rejected.
    if objects_read is None:
        objects_read = sum(counted.objects_read for counted in summaries)
        objects_read += sum(reject.objects for reject in listed.rejects)
    return {
        "examples_read": listing.tally.examples,
        "examples_written": sum(counted.examples for counted in summaries),
        "examples_rejected": len(lost),
        "objects_read": objects_read,
        "objects_written": sum(counted.objects for counted in summaries),
        "objects_rejected": len(rejects) - len(lost),
        "objects_of_rejected_examples": sum(reject.objects for reject in lost),
        "boxes_clipped": sum(counted.clipped for counted in summaries),
        "ids_hashed": sum(counted.ids_hashed for counted in summaries),
        "ballast_files": len(listing.tally.ballast),
    }


def rejects_of(listed: Index, summaries: list[Summary]) -> list[Reject]:
    """All that was left out, sorted: before an image was read, and on the workers."""
    rejects = list(listed.rejects)
    for counted in summaries:
        rejects += [Reject(*entry) for entry in counted.rejects]
    return sorted(rejects)


def write_rejects(target: epath.Path, listed: Index, summaries: list[Summary]) -> None:
    """Writes a line for each thing that was left out."""
    with (target / manifest.REJECTS).open("w") as lines:
        for reject in rejects_of(listed, summaries):
            lines.write(json.dumps(_cut(reject)) + "\n")


def _cut(reject: Reject) -> dict[str, Any]:
    """What a line of the rejects says; names that data made endless are cut, passwords of addresses among them hidden."""
    entry = asdict(reject)
    for name, value in entry.items():
        if isinstance(value, str):
            entry[name] = redacted(value)[:LONGEST]
    return entry


def _warnings(origin: Origin, by_split: Mapping[str, list[Summary]]) -> tuple[str, ...]:
    warnings = []
    for split, summaries in by_split.items():
        classes = summary.total(summaries, "classes")
        warnings += _warnings_of_absence(split, classes, origin.listing.labels)
        if split == "train":
            warnings += _warnings_of_balance(classes)
    hashed = sum(counted.ids_hashed for shards in by_split.values() for counted in shards)
    if hashed and sources.facts(origin.commission.dataset.source).numbered:
        warnings.append(
            f"{hashed} image ids are no whole numbers of up to 15 digits; "
            "image/source_id has a number made from each instead"
        )
    return (*warnings, *_warnings_of_overlap(by_split))


def _warnings_of_absence(
    split: str, classes: Mapping[str, int], labels: tuple[str, ...]
) -> list[str]:
    missing = []
    for label in labels:
        if not classes.get(label) and not label.startswith("(no category"):
            missing.append(printable(label))
    if not missing:
        return []
    more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    return [f"{split} has nothing of class {', '.join(missing[:NAMED])}{more}"]


def _warnings_of_balance(classes: Mapping[str, int]) -> list[str]:
    counts = [count for count in classes.values() if count]
    if not counts or max(counts) <= BALANCE * min(counts):
        return []
    rarest = min(classes, key=classes.__getitem__)
    commonest = max(classes, key=classes.__getitem__)
    most = f"{classes[commonest]} of {printable(commonest)}"
    least = f"{classes[rarest]} of {printable(rarest)}"
    return [f"train is out of balance: {most}, {least}"]


def _warnings_of_overlap(by_split: Mapping[str, list[Summary]]) -> list[str]:
    contents: dict[str, set[str]] = {}
    for split, summaries in by_split.items():
        contents[split] = set(itertools.chain(*(counted.contents for counted in summaries)))
    warnings = []
    for split, later_split in itertools.combinations(sorted(contents), 2):
        shared = len(contents[split] & contents[later_split])
        if shared:
            warnings.append(
                f"{shared} images are in {split} and in {later_split}: what is measured is partly memory"
            )
    return warnings
