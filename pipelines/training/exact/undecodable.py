"""Names the record that a training could not decode: TensorFlow says what is wrong with it, not which one it is."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from pipelines.outside import printable

CHUNK = 64  # records decoded at a time
NAMES = (
    "image/filename",
    "image/source_id",
    "clip/data_path",
)  # features by which a source knows its example


class Records(Protocol):
    """What `order.Records` offers."""

    def read(self, index: int) -> tuple[bytes, int]: ...

    def where(self, index: int) -> tuple[str, int]: ...


def first(
    records: Records,
    numbered: Iterable[tuple[int, int]],
    parsed: Callable[[tf.Tensor, tf.Tensor], Any],
) -> str | None:
    """The first record that cannot be decoded: its shard, its number there, its source's name and what is wrong with it.

    Args:
        numbered: indices of records, each with the key that its draws follow from.
        parsed: decodes one record, given key and record.
    """
    remaining = iter(numbered)
    while chunk := list(islice(remaining, CHUNK)):
        contents = [records.read(index)[0] for index, _ in chunk]
        keys = np.array([key for _, key in chunk], np.int64)
        dataset = tf.data.Dataset.from_tensor_slices((keys, contents))
        decoded = iter(dataset.map(parsed))
        for (index, _), content in zip(chunk, contents, strict=True):
            try:
                next(decoded)
            except tf.errors.OpError as error:
                return _sentence(*records.where(index), content, error)
    return None


def _sentence(shard: str, number: int, content: bytes, error: tf.errors.OpError) -> str:
    name = _name(content)
    named = f" ({name})" if name else ""
    reason = printable(" ".join(error.message.split()), 160)
    return (
        f"{shard}: record {number} of the shard{named} cannot be decoded: {reason}; "
        "all such records: make data DATA=<dataset> ARGS=dataset.validate=full"
    )


def _name(content: bytes) -> str:
    """What the source calls an example, empty where the record does not say."""
    try:
        features = tf.train.Example.FromString(content).features.feature
    except Exception:  # Whatever protobuf makes of bytes that are no example.
        return ""
    for name in NAMES:
        for value in features[name].bytes_list.value:
            return printable(value.decode(errors="backslashreplace"))
    return ""
