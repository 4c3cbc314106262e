"""One shard: its records in their order, each made from its example or taken from an earlier shard that has it."""

import hashlib
import json
import socket
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

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
    sources,
    summary,
)
from pipelines.data.earlier import Earlier, Made
from pipelines.data.example import Example, Rejected
from pipelines.data.images import Image
from pipelines.data.index import Index
from pipelines.data.listing import Request
from pipelines.data.summary import Summary
from pipelines.system import durable, tfrecord
from pipelines.usage import UsageError

OTHERWISE = "encodes otherwise than where the build was started"
MARK = (-1, -1)  # no position of an example
Position = tuple[int, int]  # hash of the key of an example, and the byte of its line in the index
_MAKING = threading.Lock()  # Sources and encoders need not know of threads.


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


def positions(named: tuple[str, int, int], job: Job) -> Iterator[tuple[str, Position]]:
    """(shard, (hash of the key, byte in the index)) of every example in a part of a split, and one mark for each shard."""
    split, part, parts = named
    wanted = {shard for shard in job.shards if index.split_of(shard) == split}
    if part == 0:
        for shard in sorted(wanted):  # The mark makes an empty shard appear behind the shuffle.
            yield shard, MARK
    count = sum(index.split_of(shard) == split for shard in job.index.shards)
    for at, line in _lines_of(
        job.index.file(split),
        part,
        parts,
    ):
        position = index.position(line)
        shard = index.shard_name(split, position % count, count)
        if shard in wanted:
            yield shard, (position, at)


def _lines_of(file: epath.Path, part: int, parts: int) -> Iterator[tuple[int, bytes]]:
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


def heads(grouped: tuple[str, Iterable[Position]], job: Job) -> list[bytes]:
    """Position and digest of the examples of a shard."""
    return [line[: index.HEAD] for line in _lines(*grouped, job)]


def write(
    grouped: tuple[str, Iterable[Position]],
    job: Job,
    earlier: Earlier | None = None,
) -> str:
    """Writes one shard, the lengths of its records, what is counted of its examples, then its summary.

    Each appears whole or not at all.

    Args:
        earlier: a shard that has some of the records.

    Raises:
        UsageError: this worker encodes otherwise than the machine that the fingerprint is from, or a file of the source
            is no longer what it was when it was listed.
        Damaged: the earlier shard is not as it was written.
    """
    _refuse_other_encoders(job)
    shard, located = grouped
    file = epath.Path(job.folder) / shard
    beside = checks.place(file.parent, "")
    counted = Summary(file=shard, inputs=job.index.shards[shard])
    sha256 = hashlib.sha256()
    listed = hashlib.sha256()
    lengths = array("I")
    with (
        durable.whole(file, beside) as content,
        durable.whole(manifest.examples_file(file)) as examples,
    ):
        for line in _lines(shard, located, job):
            head = line[: index.HEAD]
            made = (earlier and earlier.take(head)) or _made(line, job)
            for part in made.record:
                content.write(part)
                sha256.update(part)
                counted.bytes += len(part)
            if made.record:
                lengths.append(len(made.record[1]))
            counted.add(made.counts)
            entry = head + json.dumps(made.counts).encode() + b"\n"
            examples.write(entry)
            listed.update(entry)
        if earlier:
            earlier.check_rest()
    counted.sha256 = sha256.hexdigest()
    counted.listed = listed.hexdigest()
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


def _lines(shard: str, located: Iterable[Position], job: Job) -> Iterator[bytes]:
    """The lines of a shard's examples in the index, in the order of the records."""
    examples = [position for position in located if position[1] >= 0]  # All but the mark.
    with job.index.file(index.split_of(shard)).open("rb") as lines:
        for _, at in sorted(examples):
            lines.seek(at)
            yield lines.readline()


def _made(line: bytes, job: Job) -> Made:
    """What an example becomes, from its source."""
    counted = Summary("", "")
    with _MAKING:
        record = _record(
            index.parse(line),
            job,
            counted,
        )
        framed = tfrecord.frame(job.encode(record)) if record else ()
    return Made(framed, counted.counts())


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
