"""Batches as a function of (seed, step): read from any place, by any number of pipelines, with every draw tied to its place."""

import numpy as np
import pytest
import tensorflow as tf
from official.core import config_definitions, input_reader

from pipelines.training.randomness import Draws
from pipelines.training.stream import Stream
from pipelines.usage import UsageError

SIZE, BATCH = 22, 4


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for number in range(3):
        with tf.io.TFRecordWriter(str(folder / f"{number}.tfrecord")) as writer:
            for record in range(number, SIZE, 3):
                writer.write(b"%04d" % record + b"x" * record)
    return folder


def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    turns = tf.map_fn(lambda _: tf.random.uniform([]), tf.zeros([3]))
    box = tf.image.sample_distorted_bounding_box([32, 32, 3], tf.zeros([1, 0, 4]), 0.1, use_image_if_no_bounding_boxes=True)
    drawn = [tf.random.uniform([]), tf.random.normal([]), tf.random.gamma([], 0.5), tf.cast(box[0][0], tf.float32)]
    integers = [tf.random.uniform([], 0, 100, tf.int32), tf.random.shuffle(tf.range(9))[0], tf.cast(tf.random.categorical([[0.0, 0.0]], 1)[0, 0], tf.int32)]
    return tf.strings.substr(record, 0, 4), tf.concat([turns, tf.stack(drawn)], 0), tf.stack(integers)


def batches(folder, start: int, count: int, seed: int = 7, context: tf.distribute.InputContext | None = None, **params) -> list:
    data = config_definitions.DataConfig(input_path=f"{folder}/*.tfrecord", global_batch_size=BATCH, is_training=True, **params)
    reader = input_reader.InputReader(data, parser_fn=parse)
    stream = Stream(seed, start=start)
    with stream.reading():
        found = list(reader.read(context).take(count).as_numpy_iterator())
    assert stream.followed and set(range(start, start + count)) <= set(stream.digests)
    return found


def equal(one: list, other: list) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True))


def test_a_stream_goes_on_at_any_step(shards):
    whole = batches(shards, 0, 14)
    assert equal(whole[9:], batches(shards, 9, 5))
    assert not equal(whole, batches(shards, 0, 14, seed=8))


def test_every_example_comes_once_in_every_epoch_each_time_in_another_order(shards):
    names = [name for names, *_ in batches(shards, 0, 11) for name in names]
    first, second = names[:SIZE], names[SIZE:]
    assert sorted(first) == sorted(second) == [b"%04d" % record for record in range(SIZE)]
    assert first != second and first != sorted(first)


def test_draws_differ_between_examples_epochs_and_turns_of_a_loop(shards):
    drawn = np.concatenate([draws[:, :6].flatten() for _, draws, _ in batches(shards, 0, 11)])
    assert len(np.unique(drawn)) == len(drawn)


def test_a_reader_that_caches_augments_a_record_once(shards):
    found = batches(shards, 0, 11, cache=True)
    by_name: dict = {}
    for names, draws, _ in found:
        for name, row in zip(names, draws, strict=True):
            by_name.setdefault(name, []).append(row.tolist())
    assert all(len(rows) == 2 and rows[0] == rows[1] for rows in by_name.values())


def test_workers_share_each_batch(shards):
    alone = batches(shards, 3, 4)
    halves = [
        batches(shards, 3, 4, context=tf.distribute.InputContext(num_input_pipelines=2, input_pipeline_id=worker, num_replicas_in_sync=2))
        for worker in range(2)
    ]
    for whole, left, right in zip(alone, *halves, strict=True):
        assert equal(list(whole), [np.concatenate(parts) for parts in zip(left, right, strict=True)])


def test_lists_of_lengths_are_used_where_they_lie(shards, tmp_path):
    for shard in shards.glob("*.tfrecord"):
        (tmp_path / shard.name).write_bytes(shard.read_bytes())
        lengths = [4 + record for record in range(int(shard.stem), SIZE, 3)]
        np.array(lengths, "<u4").tofile(tmp_path / f"{shard.name}.lengths")
    assert equal(batches(shards, 0, 6), batches(tmp_path, 0, 6))


def test_a_damaged_record_is_named(shards, tmp_path):
    for shard in shards.glob("*.tfrecord"):
        (tmp_path / shard.name).write_bytes(shard.read_bytes())
    content = bytearray((tmp_path / "1.tfrecord").read_bytes())
    content[14] ^= 1
    (tmp_path / "1.tfrecord").write_bytes(content)
    stream = Stream(7)
    data = config_definitions.DataConfig(input_path=f"{tmp_path}/*.tfrecord", global_batch_size=BATCH, is_training=True)
    with stream.reading():
        dataset = input_reader.InputReader(data, parser_fn=parse).read()
    with pytest.raises(tf.errors.OpError):
        list(dataset.take(6))
    assert f"{tmp_path}/1.tfrecord" in stream.fault and "damaged" in stream.fault


def test_other_draws_are_refused():
    generator = tf.random.Generator.from_seed(1)
    with Draws(1, "step", tf.zeros([], tf.int64)), pytest.raises(UsageError, match="determinism=off"):
        generator.uniform([2])
