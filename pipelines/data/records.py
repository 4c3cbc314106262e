"""Beam: from an index of examples to shards of records.

Positions in the index travel through the shuffle, images do not: whoever writes a shard reads them.
"""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, field
from typing import Any

import apache_beam as beam
from etils import epath

from pipelines.data import images, index, runners, sources, tfrecord
from pipelines.data.sources import Example, Reject, Rejected

SUMMARY = ".summary.json"


@dataclass(frozen=True)
class Job:
    """What every worker is told."""

    folder: str  # the data set's
    index: index.Index
    source: str
    request: sources.Request
    encode: Callable[[dict[str, Any]], bytes]
    shards: tuple[str, ...]  # those to be written


@dataclass
class Summary:
    """What one shard holds, for the manifest."""

    file: str
    inputs: str
    examples: int = 0
    bytes: int = 0
    sha256: str = ""
    clipped: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    image_sizes: Counter[str] = field(default_factory=Counter)
    box_sizes: Counter[str] = field(default_factory=Counter)
    rejects: list[tuple] = field(default_factory=list)

    def count(self, image: images.Image, found: dict[str, Any]) -> None:
        """Adds one record."""
        self.examples += 1
        self.formats[image.format] += 1
        self.image_sizes[f"{_bin(image.width, 32)}x{_bin(image.height, 32)}"] += 1
        self.clipped += found.pop("clipped", 0)
        self.classes.update(found.pop("pixels", {}))
        if "text" in found:
            self.classes[found["text"]] += 1
        for item in found.get("objects", ()):
            self.classes[item["text"]] += 1
            height, width = item["box"][2] - item["box"][0], item["box"][3] - item["box"][1]
            self.box_sizes[str(_bin(math.sqrt(height * width * image.height * image.width), 8))] += 1


def _bin(value: float, width: int) -> int:
    return int(value) // width * width


def write(job: Job, runner: dict[str, Any]) -> None:
    """Writes the job's shards, each with a summary beside it."""
    engine, options = runners.create(runner)
    with beam.Pipeline(runner=engine, options=options) as pipeline:
        pipeline | "Read the source" >> ReadSource(job) | "Write the shards" >> WriteShards(job)


class ReadSource(beam.PTransform):
    """Positions of examples in the index, each under the name of its shard."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        splits = sorted({shard.split("-")[0] for shard in self._job.shards})
        return pipeline | "Name the splits" >> beam.Create(splits, reshuffle=False) | "List positions" >> beam.FlatMap(positions, self._job)


def positions(split: str, job: Job) -> Iterator[tuple[str, tuple[int, int]]]:
    """(shard, (hash of the key, byte in the index)) of every example of a split, and one mark for each shard."""
    wanted = {shard for shard in job.shards if shard.startswith(f"{split}-")}
    count = sum(shard.startswith(f"{split}-") for shard in job.index.shards)
    # The mark makes an empty shard appear behind the shuffle.
    yield from ((shard, (-1, -1)) for shard in sorted(wanted))
    at = 0
    with job.index.file(split).open("rb") as lines:
        for line in lines:
            position = sources.position(index.parse(line).key)
            shard = index.shard_name(split, position % count, count)
            if shard in wanted:
                yield shard, (position, at)
            at += len(line)


class WriteShards(beam.PTransform):
    """One file per shard, in the order of the keys' hashes: arrival order is not stable, and order by key sorts classes."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def expand(self, located: beam.PCollection) -> beam.PCollection:
        return located | "Group by shard" >> beam.GroupByKey() | "Write each shard" >> beam.Map(write_shard, self._job)


def write_shard(grouped: tuple[str, Iterable[tuple[int, int]]], job: Job) -> str:
    """Writes one shard and its summary; both appear whole or not at all."""
    shard, located = grouped
    folder = epath.Path(job.folder)
    summary = Summary(file=shard, inputs=job.index.shards[shard])
    partial = folder / f"{shard}.{os.getpid()}.partial"
    sha256 = hashlib.sha256()
    with partial.open("wb") as file, job.index.file(shard.split("-")[0]).open("rb") as lines:
        for _, at in sorted(position for position in located if position[1] >= 0):
            lines.seek(at)
            example = index.parse(lines.readline())
            record = _record(example, job, summary)
            for part in tfrecord.frame(job.encode(record)) if record else ():
                file.write(part)
                sha256.update(part)
                summary.bytes += len(part)
    summary.sha256 = sha256.hexdigest()
    partial.replace(folder / shard)
    partial.write_text(json.dumps(vars(summary)))
    partial.replace(folder / f"{shard}{SUMMARY}")
    return shard


def _record(example: Example, job: Job, summary: Summary) -> dict[str, Any] | None:
    """The record of an example; None, with the reason in the summary, where there is none."""
    try:
        image = images.inspect(_content(example))
        found = sources.load(job.source).load(example, image, job.request)
    except Rejected as rejected:
        summary.rejects.append(astuple(Reject(example.split, example.name, example.key, rejected.code, rejected.advice)))
        return None
    for record, rejected in found.pop("rejects", ()):
        summary.rejects.append(astuple(Reject(example.split, example.name, record, rejected.code, rejected.advice, whole=False)))
    summary.count(image, found)
    head = {"key": example.key, "file": example.name, "id": sources.numeric(example.key)}
    return {**head, "image": image.content, "format": image.format, "height": image.height, "width": image.width, **found}


def _content(example: Example) -> bytes:
    try:
        with open(example.file, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise Rejected("image_missing", "the file is not in dataset.images; add it or remove its entry") from None
    except OSError as error:
        raise Rejected("image_unreadable", f"the file cannot be opened: {error.strerror}") from None
