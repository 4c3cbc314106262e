"""Batches as a function of (seed, step): read from any place, by any number of pipelines, with every draw tied to its place."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import config_definitions, input_reader

from pipelines.training import exact
from pipelines.training.exact import leftovers
from pipelines.training.exact.order import Stream
from pipelines.training.exact.randomness import Draws

SIZE, BATCH = 22, 4

exact.install()


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
    box = tf.image.sample_distorted_bounding_box(
        [32, 32, 3], tf.zeros([1, 0, 4]), 0.1, use_image_if_no_bounding_boxes=True
    )
    drawn = [
        tf.random.uniform([]),
        tf.random.normal([]),
        tf.random.gamma([], 0.5),
        tf.cast(box[0][0], tf.float32),
    ]
    integers = [
        tf.random.uniform([], 0, 100, tf.int32),
        tf.random.shuffle(tf.range(9))[0],
        tf.cast(tf.random.categorical([[0.0, 0.0]], 1)[0, 0], tf.int32),
    ]
    return (
        tf.strings.substr(record, 0, 4),
        tf.concat([turns, tf.stack(drawn)], 0),
        tf.stack(integers),
    )


def batches(
    folder,
    start: int,
    count: int,
    seed: int = 7,
    context: tf.distribute.InputContext | None = None,
    **params,
) -> list:
    data = config_definitions.DataConfig(
        input_path=f"{folder}/*.tfrecord", global_batch_size=BATCH, is_training=True, **params
    )
    reader = input_reader.InputReader(data, parser_fn=parse)
    stream = Stream(seed, start=start)
    with stream.reading():
        found = list(reader.read(context).take(count).as_numpy_iterator())
    assert stream.followed and set(range(start, start + count)) <= set(stream.digests)
    return found


def equal(one: list, other: list) -> bool:
    return all(
        np.array_equal(a, b)
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True)
    )


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
        batches(
            shards,
            3,
            4,
            context=tf.distribute.InputContext(
                num_input_pipelines=2, input_pipeline_id=worker, num_replicas_in_sync=2
            ),
        )
        for worker in range(2)
    ]
    for whole, left, right in zip(alone, *halves, strict=True):
        assert equal(
            list(whole), [np.concatenate(parts) for parts in zip(left, right, strict=True)]
        )


def test_lists_of_lengths_are_used_where_they_lie(shards, tmp_path):
    (tmp_path / ".shards").mkdir()
    for shard in shards.glob("*.tfrecord"):
        (tmp_path / shard.name).write_bytes(shard.read_bytes())
        lengths = [4 + record for record in range(int(shard.stem), SIZE, 3)]
        np.array(lengths, "<u4").tofile(tmp_path / ".shards" / f"{shard.name}.lengths")
    assert equal(batches(shards, 0, 6), batches(tmp_path, 0, 6))


def test_a_list_of_lengths_that_does_not_fit_its_shard_is_not_used(shards, tmp_path):
    (tmp_path / ".shards").mkdir()
    for shard in shards.glob("*.tfrecord"):
        (tmp_path / shard.name).write_bytes(shard.read_bytes())
        np.array([1, 2, 3], "<u4").tofile(tmp_path / ".shards" / f"{shard.name}.lengths")
    assert equal(batches(shards, 0, 6), batches(tmp_path, 0, 6))


def test_digests_are_kept_only_where_somebody_takes_them(shards):
    data = config_definitions.DataConfig(
        input_path=f"{shards}/*.tfrecord", global_batch_size=BATCH, is_training=True
    )
    for watched in (True, False):
        stream = Stream(7, watched=watched)
        with stream.reading():
            dataset = input_reader.InputReader(data, parser_fn=parse).read()
        list(dataset.take(3))
        assert bool(stream.digests) == watched


@pytest.mark.parametrize("is_training", [True, False])
def test_a_record_that_cannot_be_decoded_is_named(tmp_path, is_training):
    def decode(record: tf.Tensor) -> tf.Tensor:
        encoded = tf.io.parse_single_example(
            record, {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
        )["image/encoded"]
        return tf.io.decode_png(encoded)

    def example(name: str, content: bytes) -> bytes:
        feature = {"image/encoded": content, "image/filename": name.encode()}
        lists = {
            key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
            for key, value in feature.items()
        }
        return tf.train.Example(features=tf.train.Features(feature=lists)).SerializeToString()

    whole = tf.io.encode_png(tf.zeros([2, 2, 3], tf.uint8)).numpy()
    for shard in range(2):
        with tf.io.TFRecordWriter(str(tmp_path / f"{shard}.tfrecord")) as writer:
            for record in range(5):
                broken = (shard, record) == (1, 3)
                writer.write(example(f"{shard}-{record}.png", whole[:20] if broken else whole))
    data = config_definitions.DataConfig(
        input_path=f"{tmp_path}/*.tfrecord", global_batch_size=2, is_training=is_training
    )
    stream = Stream(7)
    with stream.reading():
        dataset = input_reader.InputReader(data, parser_fn=decode).read()
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(dataset.take(5))
    said = stream.undecodable(range(0, 6) if is_training else None)
    assert said.startswith(
        f"{tmp_path}/1.tfrecord: record 3 of the shard (1-3.png) cannot be decoded: "
    )


def test_a_damaged_record_is_named(shards, tmp_path):
    for shard in shards.glob("*.tfrecord"):
        (tmp_path / shard.name).write_bytes(shard.read_bytes())
    content = bytearray((tmp_path / "1.tfrecord").read_bytes())
    content[14] ^= 1
    (tmp_path / "1.tfrecord").write_bytes(content)
    stream = Stream(7)
    data = config_definitions.DataConfig(
        input_path=f"{tmp_path}/*.tfrecord", global_batch_size=BATCH, is_training=True
    )
    with stream.reading():
        dataset = input_reader.InputReader(data, parser_fn=parse).read()
    with pytest.raises(tf.errors.OpError):
        list(dataset.take(6))
    assert f"{tmp_path}/1.tfrecord" in stream.fault and "damaged" in stream.fault


PLACE = tf.TensorSpec([], tf.int64)


def traced(function) -> tf.Graph:
    """The graph of a function of a float vector, traced as the training step is."""

    @tf.function(input_signature=[PLACE, tf.TensorSpec([2])])
    def step(place, values):
        with Draws(1, "step", place):
            return function(values)

    return step.get_concrete_function().graph


def candidates(values):
    return values + tf.random.uniform_candidate_sampler([[0]], 1, 2, True, 9)[2][0]


def earlier_trace():
    earlier = tf.function(lambda values: values + tf.random.uniform([2]))
    earlier(tf.zeros([2]))
    return earlier


def within(function):
    return lambda values: tf.map_fn(
        lambda value: tf.cond(value > 0, lambda: function(value), lambda: value), values
    )


GENERATOR = tf.random.Generator.from_seed(1)
LEFT = {
    "RandomUniform": lambda values: values + tf.raw_ops.RandomUniform(shape=[2], dtype=tf.float32),
    "TruncatedNormal": within(lambda value: value + tf.raw_ops.TruncatedNormal(shape=[1], dtype=tf.float32)[0]),
    "RngReadAndSkip": lambda values: values + GENERATOR.uniform([2]),
    "RandomPoissonV2": lambda values: values + tf.random.poisson([2], 3.0),
    "ParameterizedTruncatedNormal": lambda values: values + tf.raw_ops.ParameterizedTruncatedNormal(
        shape=[2], means=0.0, stdevs=1.0, minvals=-1.0, maxvals=1.0
    ),
    "UniformCandidateSampler": candidates,
    "NonDeterministicInts": lambda values: values + tf.cast(tf.raw_ops.NonDeterministicInts(shape=[2], dtype=tf.int64), tf.float32),
    "PyFunc": lambda values: tf.numpy_function(lambda array: array + np.random.random(2).astype("f"), [values], tf.float32),
    "PyFuncStateless": lambda values: tf.numpy_function(
        lambda array: array + np.random.random(2).astype("f"), [values], tf.float32, stateful=False
    ),
    "EagerPyFunc": lambda values: tf.py_function(lambda tensor: tensor, [values], tf.float32),
    "FractionalMaxPool": lambda values: tf.raw_ops.FractionalMaxPool(value=tf.ones([1, 4, 4, 1]), pooling_ratio=[1, 1.5, 1.5, 1])[0],
    "ShuffleDatasetV3": lambda values: tf.data.Dataset.from_tensor_slices(values).shuffle(2).reduce(0.0, lambda one, other: one - other),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEFT)
def test_what_draws_from_a_state_is_found_by_type(kind):
    found = leftovers.in_graph(traced(LEFT[kind]))
    assert kind in {draw.kind for draw in found}
    refused = leftovers.refusal(found, "the training step")
    assert kind in refused and "determinism=off" in refused


def test_a_function_traced_earlier_is_looked_into():
    (draw,) = leftovers.in_graph(traced(earlier_trace()))
    assert draw.kind == "RandomUniform" and draw.function


@pytest.mark.parametrize("training", [True, False])
def test_a_saved_model_is_looked_into(tmp_path, training):
    layers = [tf_keras.layers.Dense(2, input_shape=(2,)), tf_keras.layers.Dropout(0.5, name="half")]
    tf.saved_model.save(tf_keras.Sequential(layers), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    found = leftovers.in_graph(traced(lambda values: loaded([values], training=training)))
    assert [(draw.kind, "half" in str(draw)) for draw in found] == [
        ("RandomUniform", True)
    ] * training


def test_what_only_looks_random_is_let_pass():
    still = tf.raw_ops.FractionalMaxPool

    def pooled(values):
        ones = tf.ones([1, 4, 4, 1])
        return still(value=ones, pooling_ratio=[1, 1.5, 1.5, 1], deterministic=True, seed=1)[0]

    assert leftovers.in_graph(traced(pooled)) == []
    drawn = traced(
        lambda values: (
            tf.nn.dropout(values, 0.5)
            + tf.random.normal([2])
            + tf.random.stateless_uniform([2], [1, 2])
        )
    )
    assert leftovers.in_graph(drawn) == []
    assert leftovers.refusal([], "the training step") is None


@pytest.mark.parametrize("make", [tf.vectorized_map, tf.map_fn])
def test_rows_of_a_mapped_function_draw_apart(make):
    @tf.function
    def step(place):
        with Draws(1, "step", place):
            return make(
                lambda row: row + tf.stack([tf.random.uniform([]), tf.random.normal([])]),
                tf.zeros([4, 1]),
            )

    drawn = step(tf.constant(3, tf.int64)).numpy()
    assert len(np.unique(drawn)) == 8
    assert np.array_equal(drawn, step(tf.constant(3, tf.int64))) and not np.array_equal(
        drawn, step(tf.constant(4, tf.int64))
    )


def test_mapped_rows_outside_a_training_draw_as_tensorflow_has_it():
    assert (
        len(np.unique(tf.vectorized_map(lambda row: row + tf.random.uniform([]), tf.zeros([4]))))
        == 4
    )


def test_an_input_pipeline_that_draws_from_a_state_is_noted(shards):
    data = config_definitions.DataConfig(
        input_path=f"{shards}/*.tfrecord", global_batch_size=BATCH, is_training=True
    )
    drawing = lambda record: (record, tf.raw_ops.RandomUniform(shape=[2], dtype=tf.float32))  # noqa: E731
    stream = Stream(7)
    with stream.reading():
        input_reader.InputReader(data, parser_fn=drawing).read()
    assert "the input pipeline" in stream.refusal and "RandomUniform" in stream.refusal
    with (plain := Stream(7)).reading():
        input_reader.InputReader(data, parser_fn=parse).read()
    assert plain.refusal is None


def test_a_pipeline_in_one_order_may_draw_from_a_seeded_state_only():
    tf.random.set_seed(1)
    numbers = tf.data.Dataset.range(3)
    assert leftovers.in_dataset(numbers.map(lambda _: tf.random.uniform([])).batch(2)) == []
    unseeded = numbers.map(lambda _: tf.raw_ops.RandomUniform(shape=[1], dtype=tf.float32)).batch(2)
    assert [draw.kind for draw in leftovers.in_dataset(tf.data.Dataset.zip(numbers, unseeded))] == [
        "RandomUniform"
    ]
