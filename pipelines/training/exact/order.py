"""Training batches as a function of (seed, global step): each epoch a new order of all records, read by number, not by replay.

Takes the place of the shuffling in Model Garden's `InputReader.read` for training data; the reader's own decoder and parser do
the rest, their random draws tied to the example's position (`randomness`). A restart at any step resumes exactly, at no cost,
and any number of threads gives the same batches.
"""

import functools
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from etils import epath

from pipelines.data import manifest
from pipelines.system import tfrecord
from pipelines.system.tfrecord import FOOTER, HEADER
from pipelines.training import memory, upstream
from pipelines.training.exact import leftovers, undecodable
from pipelines.training.exact.kept import Kept
from pipelines.training.exact.randomness import Draws
from pipelines.training.upstream import Reading
from pipelines.usage import UsageError

# Of the free memory decoded examples take up one such part at most: the training has other uses, and others train beside it.
KEPT_PART = 8


class Records:
    """Random access to the records of TFRecord shards.

    Raises:
        UsageError: a shard is missing or is no TFRecord file.
    """

    def __init__(self, shards: list[str]) -> None:
        self._shards = sorted(shards)
        lengths = [_lengths(shard) for shard in self._shards]
        counts = [len(shard) for shard in lengths]
        starts = []
        for shard in lengths:
            ends = np.cumsum(shard + HEADER + FOOTER)
            starts.append(ends - shard - FOOTER)
        self._shard = np.repeat(np.arange(len(lengths)), counts)
        self._start = np.concatenate(starts)
        self._length = np.concatenate(lengths)

    def __len__(self) -> int:
        return len(self._start)

    def where(self, index: int) -> tuple[str, int]:
        """The shard of a record, and its number there, from 0."""
        shard = self._shard[index]
        first = int(np.searchsorted(self._shard, shard))
        return self._shards[shard], index - first

    def read(self, index: int) -> tuple[bytes, int]:
        """One record and its stored checksum.

        Raises:
            ValueError: the bytes are not those that were written.
        """
        shard = self._shards[self._shard[index]]
        start = int(self._start[index])
        length = int(self._length[index])
        with open(shard, "rb", buffering=0) as file:
            file.seek(start)
            content = file.read(length + FOOTER)
        record, footer = content[:length], content[length:]
        stored = int.from_bytes(footer, "little")
        if len(footer) < FOOTER or tfrecord.checksum(record) != stored:
            raise ValueError(f"{shard}: record {index} of the split, at byte {start}, is damaged")
        return record, stored


def _lengths(shard: str) -> np.ndarray:
    """Payload bytes of each record, int64: from the list that fits the shard, else from the shard's own headers."""
    size = Path(shard).stat().st_size
    listed = manifest.lengths_file(epath.Path(shard))
    if listed.exists():
        lengths = np.fromfile(listed, "<u4").astype(np.int64)
        if int((lengths + HEADER + FOOTER).sum()) == size:
            return lengths
    return _lengths_in_headers(shard, size)


def _lengths_in_headers(shard: str, size: int) -> np.ndarray:
    lengths: list[int] = []
    end = 0
    with open(shard, "rb") as file:
        for length in tfrecord.lengths(file):
            lengths.append(length)
            end += HEADER + length + FOOTER
            if end > size:
                raise UsageError(
                    f"{shard}: cut short; build it again, with the command that built it and verify=true"
                )
    return np.array(lengths, np.int64)


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
        self._trained: Batches | None = None
        self._evaluated: Reading | None = None

    def undecodable(self, steps: range | None) -> str | None:
        """The first record that cannot be decoded, in one sentence: in the batches of `steps`, else in the data evaluated on."""
        if steps is None:
            return _undecodable_of(self._evaluated) if self._evaluated else None
        batches = self._trained
        sentences = map(batches.undecodable, steps) if batches else ()
        return next(filter(None, sentences), None)

    def order(self, epoch: int, size: int) -> np.ndarray:
        """Permutation of the records in one epoch, int64 of shape [size]."""
        return _order(self.seed, epoch, size)

    def reading(self) -> AbstractContextManager[None]:
        """Inside, training readers of Model Garden's that read plain record files follow this stream; others stay as they are."""
        return upstream.reading_with(self._read)

    def refuse(self, graph: tf.Graph) -> None:
        """Notes what a traced function of the input would draw from a state; TensorFlow would rewrite an error raised here."""
        refusal = leftovers.refusal(leftovers.in_graph(graph), "the input pipeline")
        self.refusal = self.refusal or refusal

    def _read(
        self, official: Callable[..., tf.data.Dataset], reader: Any, context: Any, dataset: Any
    ) -> tf.data.Dataset:
        reading = upstream.reading(reader)
        if dataset is None and not reading.is_training and _is_numbered(reading):
            self._evaluated = reading
        if dataset is not None or not follows(reading):
            return official(reader, context, dataset)
        self.followed = True
        self._trained = Batches(self, reading, context or tf.distribute.InputContext())
        return self._trained.dataset()


class Batches:
    """What one input pipeline reads of a stream: its share of every batch.

    A batch has a number for each example, counted over the whole training. The epoch and the place in its order follow from
    the number, and so do the example's random draws.
    """

    def __init__(
        self, stream: Stream, reading: Reading, context: tf.distribute.InputContext
    ) -> None:
        self._stream = stream
        self._reading = reading
        self._batch = context.get_per_replica_batch_size(reading.batch_size)
        self._share = self._batch * context.num_replicas_in_sync // context.num_input_pipelines
        self._first = context.input_pipeline_id * self._share
        self._records = Records(reading.files)
        # With several replicas, whose datasets are placed by a strategy, it has not been tried.
        is_alone = context.num_replicas_in_sync == 1
        self._kept = self._keeping() if is_alone else None

    def _keeping(self) -> Kept | None:
        """Room for decoded examples; None where a reader's decoder leaves pictures as they are."""
        if len(self._reading.stages) < 2:
            return None
        kept = Kept(self._reading.stages[0], memory.available() // KEPT_PART)
        return kept if kept.is_of_use else None

    def dataset(self) -> tf.data.Dataset:
        """The batches from the stream's start on, without end."""
        # Whatever the threads, order and content stay: nothing below holds a state.
        options = tf.data.Options()
        options.deterministic = True
        return (
            tf.data.Dataset.range(np.iinfo(np.int64).max)
            .map(self._fetched)
            .prefetch(1)
            .unbatch()
            .map(self._example, num_parallel_calls=tf.data.AUTOTUNE)
            .batch(self._batch, drop_remainder=True)
            .map(self._mixed, num_parallel_calls=tf.data.AUTOTUNE)
            .with_options(options)
            .prefetch(self._reading.prefetch)
        )

    def undecodable(self, step: int) -> str | None:
        """The first record of a batch that cannot be decoded, in one sentence."""
        indices, keys = self._of_step(step)
        return undecodable.first(self._records, zip(indices, keys, strict=True), self._parsed)

    def _of_step(self, step: int) -> tuple[list[int], np.ndarray]:
        """The records of a batch, and what their random draws follow from."""
        size = len(self._records)
        first = step * self._reading.batch_size + self._first
        numbers = np.arange(first, first + self._share)
        indices = []
        for number in numbers:
            epoch, offset = divmod(int(number), size)
            order = self._stream.order(epoch, size)
            indices.append(int(order[offset]))
        # A reader that caches augments a record once, the same way in every epoch.
        keys = indices if self._reading.is_cached else numbers
        return indices, np.array(keys, np.int64)

    def _read(self, steps_taken: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        step = int(steps_taken) + self._stream.start
        indices, keys = self._of_step(step)
        try:
            batch = [self._records.read(index) for index in indices]
        except (OSError, ValueError) as error:
            self._stream.fault = str(error)
            raise
        if self._stream.watched:
            checksums = np.array([checksum for _, checksum in batch], "<u4")
            self._stream.digests[step] = zlib.crc32(checksums.tobytes())
        records = [record for record, _ in batch]
        return keys, np.array(indices, np.int64), np.array(records, object)

    @upstream.plain
    def _fetched(self, step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        kinds = [tf.int64, tf.int64, tf.string]
        fetched = tf.numpy_function(self._read, [step], kinds, stateful=True)
        return tuple(tf.ensure_shape(tensor, [self._share]) for tensor in fetched)

    @upstream.plain
    def _example(self, key: tf.Tensor, index: tf.Tensor, record: tf.Tensor) -> Any:
        if self._kept is None:
            return self._parsed(key, record)
        _, *others = self._reading.stages
        return self._through(others, key, self._kept.decoded(index, record))

    @upstream.plain
    def _parsed(self, key: tf.Tensor, record: tf.Tensor) -> Any:
        return self._through(self._reading.stages, key, record)

    def _through(self, stages: Sequence[Callable[..., Any]], key: tf.Tensor, value: Any) -> Any:
        with Draws(self._stream.seed, "example", key):
            example = _through(stages, value)
        self._stream.refuse(tf.compat.v1.get_default_graph())
        return key, example

    @upstream.plain
    def _mixed(self, keys: tf.Tensor, examples: Any) -> Any:
        if self._reading.postprocess is None:
            return examples
        arguments = examples if isinstance(examples, tuple) else (examples,)
        with Draws(self._stream.seed, "batch", keys[0]):
            mixture = upstream.converted(self._reading.postprocess)(*arguments)
        self._stream.refuse(tf.compat.v1.get_default_graph())
        return mixture


def follows(reading: Reading) -> bool:
    """Whether a reader's batches can be a function of the step: plain local files, nothing that mixes or drops examples."""
    return reading.is_training and _is_numbered(reading) and not reading.is_altered


def _is_numbered(reading: Reading) -> bool:
    """Whether a reader's records can be read by their numbers: plain local files."""
    if not isinstance(reading.files, list):
        return False
    is_remote = any("://" in file for file in reading.files)  # A request for each record is slow.
    return not is_remote and reading.dataset_fn is tf.data.TFRecordDataset


def _undecodable_of(reading: Reading) -> str | None:
    """The first record of evaluation data that cannot be decoded, in one sentence."""
    records = Records(reading.files)

    @upstream.plain
    def parsed(key: tf.Tensor, record: tf.Tensor) -> Any:
        return _through(reading.stages, record)

    numbered = ((index, index) for index in range(len(records)))
    return undecodable.first(records, numbered, parsed)


@upstream.plain
def _through(stages: Sequence[Callable[..., Any]], record: Any) -> Any:
    """What an example becomes in each of a reader's stages, as AutoGraph rewrites them."""
    for stage in stages:
        record = upstream.converted(stage)(record)
    return record


@functools.lru_cache(maxsize=2)  # A batch may lie across two epochs.
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    bits = np.random.Philox([seed % 2**64, epoch])
    return np.random.Generator(bits).permutation(size)
