"""Decoded examples kept in memory between a reader's decoder and its parser: a picture is decoded once and augmented every time.

A parser is given what the decoder gave, bit for bit. Masks, which decoders make floats of, are kept as bytes. Examples are
kept as they come until the room is taken up: in an order that is new in every epoch none is worth more than another.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from pipelines.training import upstream
from pipelines.training.exact import leftovers
from pipelines.training.exact.randomness import untied

ABSENT = b""


class Kept:
    """Keeps what a decoder gives.

    Args:
        decoder: takes a record, gives a nest of tensors.
        room: bytes to take up at most; threads that put something there at the same moment may exceed it by that.
    """

    def __init__(self, decoder: Callable[[tf.Tensor], Any], room: int) -> None:
        @tf.function
        @upstream.plain
        def decode(record: tf.Tensor) -> Any:
            return upstream.converted(decoder)(record)

        a_record = tf.TensorSpec([], tf.string)
        with untied():
            self._decode = decode.get_concrete_function(a_record)
        self._like = self._decode.structured_outputs
        self._specs = tf.nest.flatten(self._like)
        drawn = leftovers.in_graph(self._decode.graph)
        pictures = [spec for spec in self._specs if _is_picture(spec)]
        # Without a picture there is nothing that took long; what is drawn has to be drawn again.
        self.is_of_use = bool(pictures) and not drawn
        self._table = tf.lookup.experimental.MutableHashTable(
            tf.int64,
            tf.string,
            ABSENT,
        )
        # No `tf.Variable`: some strategies would make several of it.
        self._left = tf.raw_ops.VarHandleOp(
            dtype=tf.int64,
            shape=[],
            shared_name=f"left_{id(self)}",
        )
        tf.raw_ops.AssignVariableOp(
            resource=self._left,
            value=tf.constant(room, tf.int64),
        )

    def __len__(self) -> int:
        """Examples kept."""
        tensors = int(self._table.size())
        return tensors // len(self._specs)

    @upstream.plain
    def decoded(self, index: tf.Tensor, record: tf.Tensor) -> Any:
        """What the decoder gives for a record, which `index` stands for: from memory where it is there."""
        count = len(self._specs)
        first = index * count
        places = first + tf.range(count, dtype=tf.int64)
        texts = self._table.lookup(places)

        @upstream.plain
        def again() -> list[tf.Tensor]:
            tensors = []
            for number, spec in enumerate(self._specs):
                tensors.append(_read(texts[number], spec))
            return tensors

        @upstream.plain
        def anew() -> list[tf.Tensor]:
            decoded = self._decode(record)
            tensors = tf.nest.flatten(decoded)
            self._keep(places, tensors)
            return tensors

        is_absent = tf.equal(texts[0], ABSENT)
        tensors = tf.cond(is_absent, anew, again)
        for tensor, spec in zip(tensors, self._specs, strict=True):
            tensor.set_shape(spec.shape)
        return tf.nest.pack_sequence_as(self._like, tensors)

    def _keep(self, places: tf.Tensor, tensors: list[tf.Tensor]) -> None:
        small = [_small(tensor) for tensor in tensors]
        pairs = zip(small, tensors, strict=True)
        exact = [_is_exact(*pair) for pair in pairs]
        serialized = [tf.io.serialize_tensor(tensor) for tensor in small]
        texts = tf.stack(serialized)
        lengths = tf.strings.length(texts)
        size = tf.reduce_sum(tf.cast(lengths, tf.int64))
        left = tf.raw_ops.ReadVariableOp(
            resource=self._left,
            dtype=tf.int64,
        )
        fits = size <= left

        @upstream.plain
        def put() -> tf.Tensor:
            tf.raw_ops.AssignSubVariableOp(
                resource=self._left,
                value=size,
            )
            self._table.insert(places, texts)
            return tf.constant(True)

        @upstream.plain
        def leave() -> tf.Tensor:
            return tf.constant(False)

        tf.cond(tf.reduce_all(exact) & fits, put, leave)


def _is_picture(spec: Any) -> bool:
    return spec.dtype == tf.uint8 and spec.shape.rank == 3


def _is_mask(spec: Any) -> bool:
    return spec.dtype == tf.float32 and spec.shape.rank == 3


def _small(tensor: tf.Tensor) -> tf.Tensor:
    if _is_mask(tensor):
        return tf.cast(tensor, tf.uint8)
    return tensor


def _is_exact(small: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    """Whether a tensor can be made of what is kept of it, bit for bit."""
    if not _is_mask(tensor):
        return tf.constant(True)
    made = tf.cast(small, tf.float32)
    made_bits = tf.bitcast(made, tf.int32)
    bits = tf.bitcast(tensor, tf.int32)
    return tf.reduce_all(tf.equal(made_bits, bits))


def _read(text: tf.Tensor, spec: Any) -> tf.Tensor:
    if _is_mask(spec):
        small = tf.io.parse_tensor(text, tf.uint8)
        return tf.cast(small, tf.float32)
    return tf.io.parse_tensor(text, spec.dtype)
