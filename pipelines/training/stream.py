"""Training batches as a function of (seed, global step): each epoch a new order of all records, found by place, not by replay.

Takes the place of the shuffling in Model Garden's `InputReader.read` for training data; the reader's own decoder and parser do
the rest, their random draws tied to the example's place (`randomness`). A restart at any step goes on exactly, at no cost, and
any number of threads gives the same batches.
"""

import functools
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from etils import epath
from official.core import input_reader

from pipelines.data import manifest
from pipelines.system import tfrecord
from pipelines.system.tfrecord import FOOTER, HEADER
from pipelines.training import tracing, undecodable, unplaced
from pipelines.training.randomness import Draws
from pipelines.usage import UsageError


class Records:
    """Random access to the records of TFRecord shards.

    Raises:
        UsageError: a shard is missing or is no TFRecord file.
    """

    def __init__(self, shards: list[str]) -> None:
        self._shards = sorted(shards)
        lengths = [_lengths(shard) for shard in self._shards]
        self._shard = np.repeat(np.arange(len(lengths)), [len(one) for one in lengths])
        starts = [np.cumsum(one + HEADER + FOOTER) - one - FOOTER for one in lengths]
        self._start, self._length = np.concatenate(starts), np.concatenate(lengths)

    def __len__(self) -> int:
        return len(self._start)

    def where(self, index: int) -> tuple[str, int]:
        """The shard of a record, and its number there, from 0."""
        shard = self._shard[index]
        return self._shards[shard], int(index - np.searchsorted(self._shard, shard))

    def read(self, index: int) -> tuple[bytes, int]:
        """One record and its stored checksum.

        Raises:
            ValueError: the bytes are not those that were written.
        """
        shard, length = self._shards[self._shard[index]], int(self._length[index])
        with open(shard, "rb", buffering=0) as file:
            file.seek(int(self._start[index]))
            content = file.read(length + FOOTER)
        record, stored = content[:length], int.from_bytes(content[length:], "little")
        if len(content) < length + FOOTER or tfrecord.checksum(record) != stored:
            raise ValueError(
                f"{shard}: record {index} of the split, at byte {self._start[index]}, is damaged"
            )
        return record, stored


def _lengths(shard: str) -> np.ndarray:
    """Payload bytes of each record, int64: from the list that fits the shard, else from the shard's own headers."""
    size, listed = Path(shard).stat().st_size, manifest.lengths_file(epath.Path(shard))
    if listed.exists():
        lengths = np.fromfile(listed, "<u4").astype(np.int64)
        if int((lengths + HEADER + FOOTER).sum()) == size:
            return lengths
    from_headers, end = [], 0
    with open(shard, "rb") as file:
        for length in tfrecord.lengths(file):
            from_headers.append(length)
            end += HEADER + length + FOOTER
            if end > size:
                raise UsageError(
                    f"{shard}: cut short; build it again, with the command that built it and verify=true"
                )
    return np.array(from_headers, np.int64)


@dataclass
class Stream:
    """The order of the training data, shared by the input pipeline and whoever watches it.

    Attributes:
        start: global step of the first batch that an iterator gives; set it before training begins.
        followed: whether a reader follows it.
        fault: what was wrong with the data, when reading failed.
        refusal: why the training cannot be repeated exactly: what was traced draws from a state.
        watched: whether somebody takes the digests.
        digests: where it is watched, per global step read and not taken yet a checksum over the batch's records in order.
    """

    seed: int
    start: int = 0
    followed: bool = False
    fault: str | None = None
    refusal: str | None = None
    watched: bool = True
    digests: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._in_batch: Callable[[int], str | None] = lambda step: None
        self._in_evaluation: Callable[[], str | None] = lambda: None

    def undecodable(self, steps: range | None) -> str | None:
        """The first record that cannot be decoded, in one sentence: of the batches of `steps`, else of the data evaluated on."""
        if steps is None:
            return self._in_evaluation()
        return next(filter(None, map(self._in_batch, steps)), None)

    def order(self, epoch: int, size: int) -> np.ndarray:
        """Permutation of the records in one epoch, int64 of shape [size]."""
        return _order(self.seed, epoch, size)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, training readers of Model Garden's that read plain record files follow this stream; others stay as they are."""
        official = input_reader.InputReader.read

        def read(reader: Any, input_context: Any = None, dataset: Any = None) -> tf.data.Dataset:
            if dataset is None and not reader._is_training and _by_place(reader):
                self._in_evaluation = functools.partial(_undecodable_of, reader)
            if dataset is not None or not follows(reader):
                return official(reader, input_context, dataset)
            return self._batches(reader, input_context or tf.distribute.InputContext())

        input_reader.InputReader.read = read
        try:
            yield
        finally:
            input_reader.InputReader.read = official

    def _batches(self, reader: Any, context: tf.distribute.InputContext) -> tf.data.Dataset:
        self.followed = True
        batch = context.get_per_replica_batch_size(reader._global_batch_size)
        share = batch * context.num_replicas_in_sync // context.num_input_pipelines
        first = context.input_pipeline_id * share
        records = Records(reader._matched_files)
        stages, postprocess = (
            [one for one in (reader._decoder_fn, reader._parser_fn) if one],
            reader._postprocess_fn,
        )

        def batch_at(step: int) -> tuple[list[int], np.ndarray]:
            places = step * reader._global_batch_size + first + np.arange(share)
            epochs, offsets = np.divmod(places, len(records))
            orders = [self.order(int(epoch), len(records)) for epoch in epochs]
            indices = [int(order[offset]) for order, offset in zip(orders, offsets, strict=True)]
            # A reader that caches augments a record once, the same way in every epoch.
            return indices, np.array(indices if reader._cache else places, np.int64)

        def read(steps_taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            step = int(steps_taken) + self.start
            indices, keys = batch_at(step)
            try:
                found = [records.read(index) for index in indices]
            except (OSError, ValueError) as error:
                self.fault = str(error)
                raise
            if self.watched:
                self.digests[step] = zlib.crc32(
                    np.array([stored for _, stored in found], "<u4").tobytes()
                )
            return keys, np.array([record for record, _ in found], object)

        @tracing.plain
        def parsed(key: tf.Tensor, record: tf.Tensor) -> Any:
            with Draws(self.seed, "example", key):
                for stage in stages:
                    record = tracing.converted(stage)(record)
            self._note_draws()
            return key, record

        def in_batch(step: int) -> str | None:
            return undecodable.first(records, zip(*batch_at(step), strict=True), parsed)

        self._in_batch = in_batch

        @tracing.plain
        def mixed(keys: tf.Tensor, examples: Any) -> Any:
            if postprocess is None:
                return examples
            with Draws(self.seed, "batch", keys[0]):
                mixture = tracing.converted(postprocess)(
                    *(examples if isinstance(examples, tuple) else (examples,))
                )
            self._note_draws()
            return mixture

        @tracing.plain
        def fetched(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            keys, contents = tf.numpy_function(read, [step], [tf.int64, tf.string], stateful=True)
            return tf.ensure_shape(keys, [share]), tf.ensure_shape(contents, [share])

        # Whatever the threads, order and content stay: nothing below holds a state.
        options = tf.data.Options()
        options.deterministic = True
        return (
            tf.data.Dataset.range(np.iinfo(np.int64).max)
            .map(fetched)
            .prefetch(1)
            .unbatch()
            .map(parsed, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(batch, drop_remainder=True)
            .map(mixed, num_parallel_calls=tf.data.AUTOTUNE)
            .with_options(options)
            .prefetch(reader._prefetch_buffer_size)
        )

    def _note_draws(self) -> None:
        """Notes what the traced function would draw from a state; TensorFlow would rewrite an error raised here."""
        draws = unplaced.in_graph(tf.compat.v1.get_default_graph())
        self.refusal = self.refusal or unplaced.refusal(draws, "the input pipeline")


def follows(reader: Any) -> bool:
    """Whether a reader's batches can be a function of the step: plain local files, nothing that mixes or drops examples."""
    return (
        reader._is_training
        and _by_place(reader)
        and not any(
            (
                reader._combine_fn,
                reader._sample_fn,
                reader._filter_fn,
                reader._transform_and_batch_fn,
            )
        )
        and not reader._enable_tf_data_service
    )


def _by_place(reader: Any) -> bool:
    """Whether a reader's records can be read by their places: plain local files."""
    return (
        isinstance(reader._matched_files, list)
        and not any(
            "://" in file for file in reader._matched_files
        )  # one request for each record would be slow
        and reader._dataset_fn is tf.data.TFRecordDataset
    )


def _undecodable_of(reader: Any) -> str | None:
    """The first record that a reader of evaluation data cannot decode, in one sentence."""
    stages = [stage for stage in (reader._decoder_fn, reader._parser_fn) if stage]
    records = Records(reader._matched_files)

    @tracing.plain
    def parsed(key: tf.Tensor, record: tf.Tensor) -> Any:
        for stage in stages:
            record = tracing.converted(stage)(record)
        return record

    return undecodable.first(records, ((index, index) for index in range(len(records))), parsed)


@functools.lru_cache(maxsize=2)  # A batch may lie across two epochs.
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox([seed % 2**64, epoch])).permutation(size)
