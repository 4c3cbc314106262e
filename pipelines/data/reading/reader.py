"""The process that reads records back for `readback`: it decodes every image, and puts records through Model Garden."""

import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from pipelines.data import manifest, reading
from pipelines.data.manifest import Manifest

TOGETHER = 64  # records that are in memory at once

Refusal = tuple[int, str, str, str]  # record, file, SHA-256 of the image, reason


def main() -> None:
    """Answers requests, one a line, until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(_answer(request)), flush=True)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if "decode" in request:
        return {"undecodable": undecodable(request["decode"], request["numbers"])}
    built = manifest.from_json(request["check"], request["directory"])
    return {"problems": check(built, request["limit"])}


def check(built: Manifest, limit: int) -> list[str]:
    """What is wrong with the records, one line each.

    Args:
        limit: records of each shard to read; 0 for all.
    """
    task = reading.load(built.task)
    parse = task.parser(built)
    lines = []
    for file, number, record in records(built, limit):
        record_name = f"{file} record {number}"
        try:
            lines += [f"{record_name}: {problem}" for problem in task.problems(record, built)]
            parse(record)
        except (tf.errors.OpError, ValueError) as error:
            lines.append(f"{record_name}: {str(error).splitlines()[0]}")
    return lines


def records(built: Manifest, limit: int) -> Iterator[tuple[str, int, tf.Tensor]]:
    """(file, number, serialized record) of every shard, the first `limit` of each."""
    for split in built.splits.values():
        for shard in split.shards:
            is_path = "/" in shard.file
            path = shard.file if is_path else f"{built.directory}/{shard.file}"
            dataset = tf.data.TFRecordDataset(path)
            for number, record in enumerate(dataset.take(limit or -1)):
                yield shard.file, number, record


def undecodable(shard: str, numbers: list[int] | None) -> list[Refusal]:
    """The images in a shard that the operation in the official decoders refuses.

    Args:
        numbers: of the records to look at; None: all of them.
    """
    asked = None if numbers is None else set(numbers)
    every = enumerate(tf.data.TFRecordDataset(shard).as_numpy_iterator())
    numbered = (entry for entry in every if asked is None or entry[0] in asked)
    refusals: list[Refusal] = []
    with ThreadPoolExecutor() as pool:  # TensorFlow decodes outside Python's lock.
        while some := list(itertools.islice(numbered, TOGETHER)):
            refusals += [refusal for refusal in pool.map(_refusal, some) if refusal]
    return refusals


def _refusal(numbered: tuple[int, bytes]) -> Refusal | None:
    number, record = numbered
    # A `tf.train.Example` reads as one of these that has no lists: its features are the context.
    sequence = tf.train.SequenceExample.FromString(record)
    features = sequence.context.feature
    frames = sequence.feature_lists.feature_list["image/encoded"].feature
    encoded = frames or [features["image/encoded"]]
    contents = [feature.bytes_list.value[0] for feature in encoded]
    reasons = [reason for content in contents if (reason := _why_not(content, features))]
    if not reasons:
        return None
    names = [
        *features["image/filename"].bytes_list.value,
        *features["clip/data_path"].bytes_list.value,
    ]
    name = b"".join(names[:1]).decode("utf-8", "replace")
    return number, name, hashlib.sha256(b"".join(contents)).hexdigest(), reasons[0]


def _why_not(content: bytes, features: Mapping[str, tf.train.Feature]) -> str:
    """Why a picture cannot be decoded to the size that its record states; empty where it can."""
    try:
        decoded = tf.io.decode_image(content, channels=3, expand_animations=False)
    except tf.errors.OpError as error:
        return _words(error)
    height, width = decoded.shape[:2]
    if _is_stated(height, features["image/height"]) and _is_stated(width, features["image/width"]):
        return ""
    return f"it decodes to {width}x{height} pixels, which its header does not say"


def _is_stated(pixels: int, side: tf.train.Feature) -> bool:
    """Whether a record states this length of a side; other tools' records of a class may state none."""
    return tuple(side.int64_list.value) in ((), (0,), (pixels,))


def _words(error: tf.errors.OpError) -> str:
    """TensorFlow's message without the name of the operation around it."""
    text = str(error.message).splitlines()[0]
    return text.rpartition("}} ")[2].partition(" [Op:")[0]


if __name__ == "__main__":
    main()
