"""Adopts TFRecords that somebody else wrote: every record is read and checked, nothing is written again.

The data set's folder holds links to the files, and the lengths of their records. A record that does not fit stops the
adoption: files that are not rewritten cannot leave one out.
"""

import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from etils import epath

from pipelines.data import (
    build,
    content,
    description,
    fit,
    folders,
    frames,
    index,
    manifest,
    runners,
    summary,
)
from pipelines.data.description import Commission, Origin
from pipelines.data.example import Example, Rejected
from pipelines.data.fit import Labels
from pipelines.data.index import Index
from pipelines.data.listing import Listing, Tally
from pipelines.data.manifest import Manifest
from pipelines.data.readback import Readback, decoded_before, refuse_adopted
from pipelines.data.summary import Summary
from pipelines.system import durable, tfrecord
from pipelines.usage import UsageError

SHOWN = 100  # rejects of one file that are written down


@dataclass(frozen=True)
class Adoption:
    """What every worker needs to know."""

    folder: str
    decode: Callable[[bytes], dict[str, Any]]
    labels: tuple[str, ...]  # empty: taken from the records
    first_label: int


def run(commission: Commission) -> Manifest:
    """Scans the files and writes a manifest for them.

    Raises:
        UsageError: no files, files that are not local, or a record that does not fit the task.
    """
    dataset, task, found = commission.dataset, commission.task, commission.found
    target = commission.target
    folder = str(target)
    build.begin(target)
    files = dict(_linked(target, found))
    labels = tuple(str(label) for label in dataset.labels or ())
    if dataset.task == "segmentation" and not labels:
        raise UsageError(
            "dataset.labels: masks carry no names; write dataset.labels=[background,…] in the order of the classes"
        )
    with Readback(dataset, decoded_before(target), task) as readback:
        _scan(
            Adoption(folder, task.decode, labels, task.FIRST_LABEL),
            files,
            commission.runner,
        )
        scanned = _summaries(target, files)
        listed = Index(
            folder,
            files,
            _examples(scanned, list(found.places["images"])),
        )
        description.write_rejects(target, listed, scanned)
        _refuse(scanned, target)
        listing, summaries = _named(labels, task.FIRST_LABEL, scanned)
        description.require_all(dataset.source, listing, listed, summaries)
        origin = Origin(commission, listing, listed)
        built = description.describe(origin, summaries)
        refuse_adopted(readback.undecodable(built))
        readback.check(built)
    build.finish(target, built, summaries, readback.known)
    return built


def _linked(target: epath.Path, found: content.Found) -> Iterator[tuple[str, str]]:
    """(name of the link, digest of the file) for every file, by split."""
    for split, folder in found.places["images"].items():
        _check_files(split, folder, found)
        digests = found.digests["images"][split]
        for number, (name, digest) in enumerate(sorted(digests.items())):
            link = target / index.shard_name(split, number, len(digests))
            link.unlink(missing_ok=True)
            os.symlink(folders.path_of(folder, name), link)
            yield link.name, digest


def _check_files(split: str, folder: str, found: content.Found) -> None:
    if split not in ("train", "validation"):
        raise UsageError(
            "dataset.images: say which files are which: "
            "dataset.images={train:<folder or pattern>,validation:<folder or pattern>}"
        )
    unfit = found.unfit.get("images", {}).get(split, {})
    for name, (_, advice) in unfit.items():
        raise UsageError(f"dataset.images.{split}: {folders.path_of(folder, name)}: {advice}")
    if not found.digests["images"][split]:
        raise UsageError(f"dataset.images.{split}: no files in {folder}")


def _summaries(target: epath.Path, files: Mapping[str, str]) -> list[Summary]:
    read = [summary.read(target, shard) for shard in sorted(files)]
    return [counted for counted in read if counted is not None]


def _examples(summaries: list[Summary], splits: list[str]) -> dict[str, int]:
    examples = dict.fromkeys(splits, 0)
    for counted in summaries:
        examples[index.split_of(counted.file)] += counted.examples
    return examples


def _scan(adoption: Adoption, files: dict[str, str], runner: dict[str, Any]) -> None:
    with runners.pipeline(runner, shards=len(files)) as pipeline:
        named = beam.Create(sorted(files.items()), reshuffle=False)
        scanned = beam.Map(scan, adoption)
        pipeline | "Name the files" >> named | "Scan each file" >> scanned


def scan(named: tuple[str, str], adoption: Adoption) -> str:
    """Reads one file and writes the lengths of its records, and what is in it, beside its link."""
    shard, digest = named
    folder = epath.Path(adoption.folder)
    file = folder / shard
    counted = Summary(
        file=shard,
        inputs=digest,
        sha256=digest,
        bytes=file.stat().length,
    )
    lengths = array("I")
    with file.open("rb") as records:
        for number, serialized in enumerate(_framed(records, shard, counted)):
            lengths.append(len(serialized))
            _count(serialized, number, adoption, counted)
    durable.write_whole(manifest.lengths_file(file), tfrecord.as_bytes(lengths))
    summary.write(counted, folder)
    return shard


def _framed(records: Any, shard: str, counted: Summary) -> Iterator[bytes]:
    try:
        yield from tfrecord.read(records)
    except ValueError as error:
        rejected = Rejected("file_corrupt", f"{error}; fetch the file again")
        counted.reject(_example(shard, "file"), rejected)


def _example(shard: str, key: str) -> Example:
    return Example(
        index.split_of(shard),
        key,
        shard,
        shard,
        "",
        {},
    )


def _count(serialized: bytes, number: int, adoption: Adoption, counted: Summary) -> None:
    """Adds one record, or the reason why it does not fit, to the summary of its file."""
    objects = 0
    try:
        record = adoption.decode(serialized)
        objects = len(record.get("objects", ()))
        pictures = fit.read(record, Labels(adoption.labels, adoption.first_label))
        _name_labels(record, adoption)
        pixels = fit.mask_pixels(record, pictures[0], _all_numbered(adoption.labels))
    except (ValueError, Rejected) as error:
        if len(counted.rejects) < SHOWN:
            counted.reject(_example(counted.file, str(number)), _reason(error))
        return
    finally:
        counted.read(objects)
    sha256 = frames.digest(frames.pictures(record))
    counted.count(
        {**record, "sha256": sha256},
        pictures,
        pixels=pixels,
    )


def _reason(error: Exception) -> Rejected:
    return error if isinstance(error, Rejected) else Rejected("record_malformed", str(error))


def _name_labels(record: dict[str, Any], adoption: Adoption) -> None:
    """Names labels by the data set's list; number and name travel together until every file has been read."""
    labels = adoption.labels
    for item in fit.labelled(record):
        label = item["label"]
        name = labels[label - adoption.first_label] if labels else item["text"]
        item["text"] = _numbered(label, name)


def _all_numbered(labels: tuple[str, ...]) -> list[str]:
    return [_numbered(number, label) for number, label in enumerate(labels)]


def _numbered(number: int, name: str) -> str:
    return f"{number}\0{name}"


def _split_name(numbered: str) -> tuple[int, str]:
    number, _, name = numbered.partition("\0")
    return int(number), name


def _refuse(summaries: list[Summary], target: epath.Path) -> None:
    """Stops where a record does not fit; the first are named."""
    rejects = [reject for counted in summaries for reject in counted.rejects]
    if not rejects:
        return
    lines = [f"{len(rejects)} records do not fit, and adopted files are not rewritten:"]
    for _, file, record, code, advice, *_ in rejects[:3]:
        lines.append(f"{file} record {record}: {code}: {advice}")
    lines.append(f"all of them: {target}/{manifest.REJECTS}")
    raise UsageError("\n".join(lines))


def _named(
    labels: tuple[str, ...], first_label: int, summaries: list[Summary]
) -> tuple[Listing, list[Summary]]:
    """Class names in the order of their numbers, and counts under those names."""
    names = labels or _names(first_label, summaries)
    renamed = [_renamed(counted, names, first_label) for counted in summaries]
    objects = sum(counted.objects for counted in summaries)
    has_masks = 0 < objects == sum(counted.masks for counted in summaries)
    tally = Tally(sum(counted.examples_read for counted in summaries))
    return Listing(names, has_masks, (), tally=tally), renamed


def _names(first_label: int, summaries: list[Summary]) -> tuple[str, ...]:
    """Class names as the records have them, up to the highest number that occurs."""
    names: dict[int, str] = {}
    for counted in summaries:
        names.update(_split_name(numbered) for numbered in counted.classes)
    numbers = range(first_label, max(names, default=first_label - 1) + 1)
    return tuple(names.get(number) or f"class {number}" for number in numbers)


def _renamed(counted: Summary, names: tuple[str, ...], first_label: int) -> Summary:
    classes: dict[str, int] = {}
    for numbered, count in counted.classes.items():
        number, _ = _split_name(numbered)
        classes[names[number - first_label]] = count
    return replace(counted, classes=classes)
