"""Beam: from an index of examples to shards of records.

Positions in the index travel through the shuffle, images do not: whoever writes a shard reads them.
"""

import hashlib
import socket
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from etils import epath

from pipelines.data import (
    checks,
    encoders,
    frames,
    images,
    index,
    keys,
    lookup,
    manifest,
    runners,
    sources,
    summary,
)
from pipelines.data.example import Example, Rejected
from pipelines.data.images import Image
from pipelines.data.index import Index
from pipelines.data.listing import Request
from pipelines.data.summary import Summary
from pipelines.system import durable, tfrecord
from pipelines.usage import UsageError

OTHERWISE = "encodes otherwise than where the build was started"
PARTS = 64  # at most so many parts of a split's index
MARK = (-1, -1)  # no position of an example


@dataclass(frozen=True)
class Job:
    """What every worker needs to know."""

    folder: str  # the data set's
    index: Index
    source: str
    request: Request
    encode: Callable[[dict[str, Any]], bytes]
    encoders: Mapping[str, str]  # as they are where the build was started
    shards: tuple[str, ...]  # those to be written
    undecodable: Mapping[str, str] = field(
        default_factory=dict
    )  # images by SHA-256, with TensorFlow's reason


def write(job: Job, runner: dict[str, Any]) -> None:
    """Writes the job's shards, each with a summary beside it."""
    examples = sum(job.index.examples.values())
    with runners.pipeline(
        runner,
        examples=examples,
        shards=len(job.shards),
    ) as pipeline:
        located = pipeline | "Read the source" >> ReadSource(job)
        located | "Write the shards" >> WriteShards(job)


class ReadSource(beam.PTransform):
    """Positions of examples in the index, each under the name of its shard."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        parts = beam.Create(list(_parts(self._job)), reshuffle=False)
        located = beam.FlatMap(positions, self._job)
        return pipeline | "Name parts of the index" >> parts | "List positions" >> located


def _parts(job: Job) -> Iterator[tuple[str, int, int]]:
    """(split, number, how many) of the parts that the index is read in.

    As many as there are shards: a runner that keeps a collection's partitions spreads the shards over as many workers.
    """
    splits = Counter(index.split_of(shard) for shard in job.shards)
    for split, count in sorted(splits.items()):
        parts = min(count, PARTS)
        for part in range(parts):
            yield split, part, parts


def positions(named: tuple[str, int, int], job: Job) -> Iterator[tuple[str, tuple[int, int]]]:
    """(shard, (hash of the key, byte in the index)) of every example in a part of a split, and one mark for each shard."""
    split, part, parts = named
    wanted = {shard for shard in job.shards if index.split_of(shard) == split}
    if part == 0:
        for shard in sorted(wanted):  # The mark makes an empty shard appear behind the shuffle.
            yield shard, MARK
    count = sum(index.split_of(shard) == split for shard in job.index.shards)
    for at, line in _lines(
        job.index.file(split),
        part,
        parts,
    ):
        position = index.position(line)
        shard = index.shard_name(split, position % count, count)
        if shard in wanted:
            yield shard, (position, at)


def _lines(file: epath.Path, part: int, parts: int) -> Iterator[tuple[int, bytes]]:
    """(byte, line) of the lines that start in one of equal parts of a file."""
    size = file.stat().length
    at = size * part // parts
    end = size * (part + 1) // parts
    with file.open("rb") as lines:
        if at:
            lines.seek(at - 1)
            at += len(lines.readline()) - 1  # A line that began before belongs to the part before.
        while at < end:
            line = lines.readline()
            yield at, line
            at += len(line)


class WriteShards(beam.PTransform):
    """One file per shard, in the order of the keys' hashes: arrival order is not stable, and order by key sorts classes."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def expand(self, located: beam.PCollection) -> beam.PCollection:
        written = beam.Map(write_shard, self._job)
        return located | "Group by shard" >> beam.GroupByKey() | "Write each shard" >> written


def write_shard(grouped: tuple[str, Iterable[tuple[int, int]]], job: Job) -> str:
    """Writes one shard, the lengths of its records, then its summary; each appears whole or not at all.

    Raises:
        UsageError: this worker encodes otherwise than the machine that the fingerprint is from, or a file of the source
            is no longer what it was when it was listed.
    """
    _refuse_other_encoders(job)
    shard, located = grouped
    file = epath.Path(job.folder) / shard
    counted = Summary(file=shard, inputs=job.index.shards[shard])
    sha256 = hashlib.sha256()
    lengths = array("I")
    with durable.whole(file, checks.place(file.parent, "")) as content:
        for serialized in _serialized(shard, located, job, counted):
            lengths.append(len(serialized))
            for part in tfrecord.frame(serialized):
                content.write(part)
                sha256.update(part)
                counted.bytes += len(part)
    counted.sha256 = sha256.hexdigest()
    durable.write_whole(manifest.lengths_file(file), tfrecord.as_bytes(lengths))
    summary.write(counted, file.parent)
    return shard


def _refuse_other_encoders(job: Job) -> None:
    here = encoders.used(job.request.dataset)
    different = [name for name in job.encoders if here.get(name) != job.encoders[name]]
    if here == dict(job.encoders):
        return
    libraries = [f"{name} {version}" for name, version in encoders.libraries().items()]
    raise UsageError(
        f"worker {socket.gethostname()} {OTHERWISE} ({', '.join(different)}); "
        f"it has {', '.join(libraries)}: install what is there"
    )


def _serialized(
    shard: str, located: Iterable[tuple[int, int]], job: Job, counted: Summary
) -> Iterator[bytes]:
    """The records of a shard in their order, as bytes; what has none is counted."""
    examples = [position for position in located if position[1] >= 0]  # All but the mark.
    with job.index.file(index.split_of(shard)).open("rb") as lines:
        for _, at in sorted(examples):
            lines.seek(at)
            record = _record(
                index.parse(lines.readline()),
                job,
                counted,
            )
            if record is not None:
                yield job.encode(record)


def _record(example: Example, job: Job, counted: Summary) -> dict[str, Any] | None:
    """The record of an example; None, with the reason in the summary, where there is none."""
    source = sources.load(job.source)
    objects = sources.objects_of(source, example, job.request)
    counted.read(objects)
    try:
        image, sha256 = _image(example, job)
        loaded = source.load(example, image, job.request)
        if loaded.frames:
            sha256 = frames.digest(frame.content for frame in loaded.frames)
            _refuse_undecodable(sha256, job)
    except Rejected as rejected:
        counted.reject(example, rejected, objects=objects)
        return None
    for name, reason in loaded.rejects:
        counted.reject(example, reason, name)
    record = {
        "key": example.key,
        "file": example.name,
        "id": keys.numeric(example.key),
        "image": image.content,
        "sha256": sha256,
        "format": image.format,
        "height": image.height,
        "width": image.width,
        **loaded.record,
    }
    pictures = loaded.frames or [image]
    if loaded.frames:
        record["frames"] = [frame.content for frame in pictures]
    counted.count(
        record,
        pictures,
        clipped=loaded.clipped,
        pixels=loaded.pixels,
    )
    return record


def _image(example: Example, job: Job) -> tuple[Image, str]:
    """The image of an example, with the SHA-256 of its bytes."""
    content = _content(example, job)
    image = images.read(content, job.request.dataset.convert)
    listed = example.files.get(example.file) if image.content is content else None
    # What was read is what was listed, or the build has stopped: no second digest of it.
    sha256 = listed or hashlib.sha256(image.content).hexdigest()
    _refuse_undecodable(sha256, job)
    return image, sha256


def _refuse_undecodable(sha256: str, job: Job) -> None:
    if sha256 in job.undecodable:
        raise Rejected(*images.undecodable(job.undecodable[sha256]))


def _content(example: Example, job: Job) -> bytes:
    """The bytes of an example's image."""
    source = sources.load(job.source)
    if hasattr(source, "content"):
        return source.content(example, job.request)
    try:
        return lookup.read(example, example.file)
    except FileNotFoundError:
        advice = "the file is not there; add it or remove its entry"
        raise Rejected("image_missing", advice) from None
    except OSError as error:
        reason = error.strerror or error
        raise Rejected("image_unreadable", f"the file cannot be opened: {reason}") from None
