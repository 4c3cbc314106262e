"""Decoded examples come from memory as the decoder gave them, bit for bit, and never take more room than they may."""

import numpy as np
import pytest
import tensorflow as tf
from official.core import config_definitions, input_reader

from pipelines.training import exact
from pipelines.training.exact import order
from pipelines.training.exact.kept import Kept
from pipelines.training.exact.order import Stream

SIZE, BATCH = 10, 4
EDGES = [5 + number % 3 for number in range(SIZE)]

exact.install()


def record(number: int) -> bytes:
    """A picture whose size and pixels say which it is."""
    pixels = np.full((EDGES[number], 4, 3), 10 * number, np.uint8)
    return tf.io.encode_png(pixels).numpy()


def decode(text: tf.Tensor) -> dict:
    image = tf.io.decode_image(text, channels=3)
    image.set_shape([None, None, 3])
    masks = tf.cast(tf.transpose(image, [2, 0, 1]), tf.float32)
    edge = tf.shape(image)[0]
    return {"image": image, "masks": masks, "id": tf.strings.as_string(edge), "more": {}}


def parse(decoded: dict) -> tuple[tf.Tensor, ...]:
    drawn = tf.random.uniform([3])
    total = tf.reduce_sum(tf.cast(decoded["image"], tf.float32)) + tf.reduce_sum(decoded["masks"])
    return drawn, total, decoded["id"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    with tf.io.TFRecordWriter(str(folder / "0.tfrecord")) as writer:
        for number in range(SIZE):
            writer.write(record(number))
    return folder


def batches(folder, decoder=decode, count: int = 8) -> tuple[list, Kept | None]:
    """The first batches, three epochs of them, and what was kept on the way."""
    data = config_definitions.DataConfig(
        input_path=f"{folder}/*.tfrecord", global_batch_size=BATCH, is_training=True
    )
    stream = Stream(7)
    reader = input_reader.InputReader(data, decoder_fn=decoder, parser_fn=parse)
    with stream.reading():
        found = list(reader.read().take(count).as_numpy_iterator())
    return tf.nest.flatten(found), stream._trained._kept


def assert_equal(one: list, other: list) -> None:
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_training_is_given_the_same_with_kept_examples_and_without(shards, monkeypatch):
    with_memory, kept = batches(shards)
    assert len(kept) == SIZE
    monkeypatch.setattr(order, "KEPT_PART", 10**15)
    without, kept = batches(shards)
    assert len(kept) == 0
    assert_equal(with_memory, without)


def test_an_example_that_is_kept_is_not_decoded_again():
    kept = Kept(decode, 10**6)
    decoded = tf.function(kept.decoded)
    first = decoded(tf.constant(3, tf.int64), tf.constant(record(3)))
    again = decoded(tf.constant(3, tf.int64), tf.constant(record(5)))
    other = decoded(tf.constant(5, tf.int64), tf.constant(record(5)))
    assert_equal(tf.nest.flatten(first), tf.nest.flatten(again))
    assert_equal(tf.nest.flatten(first), tf.nest.flatten(decode(tf.constant(record(3)))))
    assert other["image"].numpy().max() == 50 and len(kept) == 2


def test_no_more_is_kept_than_there_is_room_for():
    kept = Kept(decode, 600)
    decoded = tf.function(kept.decoded)
    for number in range(SIZE):
        found = decoded(tf.constant(number, tf.int64), tf.constant(record(number)))
        assert_equal(tf.nest.flatten(found), tf.nest.flatten(decode(tf.constant(record(number)))))
    assert 1 <= len(kept) < 5


def test_masks_that_are_no_bytes_are_not_kept():
    def halved(text: tf.Tensor) -> dict:
        decoded = decode(text)
        return {**decoded, "masks": decoded["masks"] / 4}

    kept = Kept(halved, 10**6)
    found = tf.function(kept.decoded)(tf.constant(1, tf.int64), tf.constant(record(1)))
    assert found["masks"].numpy().max() == 2.5 and len(kept) == 0


@pytest.mark.parametrize(
    "decoder",
    [
        lambda text: {"text": text, "length": tf.strings.length(text)},
        lambda text: {"image": tf.image.random_brightness(decode(text)["image"], 0.5, seed=1)},
    ],
    ids=["no picture", "another picture each time"],
)
def test_what_is_no_decoded_picture_is_left_to_the_reader(decoder):
    assert not Kept(decoder, 10**6).is_of_use
