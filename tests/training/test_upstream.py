"""Each name that upstream does not promise to keep: is it there, does it do what we take it to do, and what breaks when not."""

import ast
import hashlib
import inspect
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orbit
import pytest
import tensorflow as tf
import tf_keras
from official.core import base_trainer, config_definitions, input_reader, train_lib, train_utils
from official.modeling import optimization
from official.vision.ops import nms
from official.vision.utils.object_detection import box_list, faster_rcnn_box_coder
from tensorflow.python.autograph.pyct import transpiler

from pipelines.training import exact, upstream
from pipelines.training.exact import leftovers, randomness
from pipelines.training.exact.randomness import Draws

exact.install()

READER = input_reader.InputReader
RUNNER = train_lib.OrbitExperimentRunner
# What we do in place of upstream, step by step. When one changes: read what is new in it, do the same, renew its digest.
STOOD_IN_FOR: dict[Callable, tuple[str, str]] = {
    READER.read: ("ba132700fac70e2d", "exact/order.py skips a new stage in silence"),
    READER._decode_and_parse_dataset: ("fc8d73c6b95fae85", "as for read"),
    RUNNER.run: ("b14229836aea6ab5", "loop.Training leaves out what run has begun to do"),
    RUNNER._maybe_build_checkpoint_manager: (
        "4462e2c9d2c85a0a",
        "followers save with other settings, or into a temporary folder again",
    ),
    orbit.Controller.train_and_evaluate: ("0f7c952a15053160", "loop.Training._train drifts"),
    orbit.Controller.train: ("4ad4222dcd2cb9d8", "checkpoints come at other steps"),
    orbit.Controller.evaluate: (
        "63890c5b76b91161",
        "figures of an evaluation get others beside them, or averages are in place for longer",
    ),
    transpiler.PyToPy.transform_function: (
        "fc08c9f431607552",
        "conversions that are kept are not found again",
    ),
    transpiler.GenericTranspiler.transform_function: (
        "3ee313eb59d42bdc",
        "a kept conversion may be none that would be made now: conversions._key has to know it",
    ),
    transpiler._PythonFnFactory.create: ("425ff4d1d37b117b", "as for transform_function"),
    train_utils.BestCheckpointExporter.maybe_export_checkpoint: (
        "63d93cb9fa77f107",
        "checkpoints.BestExporter saves another best",
    ),
}
# Everything that a reader is made with. A new name may be a new stage: `upstream.reading` has to know it.
READER_HAS = {
    "_apply_tf_data_service_before_batching",
    "_autotune_algorithm",
    "_block_length",
    "_cache",
    "_combine_fn",
    "_cycle_length",
    "_dataset_fn",
    "_decoder_fn",
    "_deterministic",
    "_drop_remainder",
    "_enable_shared_tf_data_service_between_parallel_trainers",
    "_enable_tf_data_service",
    "_filter_fn",
    "_global_batch_size",
    "_is_training",
    "_matched_files",
    "_parser_fn",
    "_postprocess_fn",
    "_prefetch_buffer_size",
    "_ram_budget",
    "_sample_fn",
    "_seed",
    "_sharding",
    "_shuffle_buffer_size",
    "_tf_data_service_address",
    "_tfds_as_supervised",
    "_tfds_data_dir",
    "_tfds_name",
    "_tfds_skip_decoding_feature",
    "_tfds_split",
    "_trainer_id",
    "_transform_and_batch_fn",
}
FOLDER = Path(upstream.__file__).parent
ROOMS = sorted(file for file in FOLDER.rglob("*.py") if file.name != "upstream.py")


@pytest.mark.parametrize("function", STOOD_IN_FOR, ids=lambda function: function.__qualname__)
def test_what_we_stand_in_for_is_as_we_read_it(function):
    digest, consequence = STOOD_IN_FOR[function]
    current = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    assert current == digest, f"{function.__qualname__} has changed: {consequence}"


def strangers(tree: ast.Module) -> set[str]:
    """Names of others that begin with an underscore, or come from TensorFlow's insides."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            is_public = node.attr.startswith("__") and node.attr != "__internal__"
            if not is_own and not is_public:
                names.add(node.attr)
        if isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names]
            names |= {name for name in modules if name and name.startswith("tensorflow.")}
    return names


@pytest.mark.parametrize("file", ROOMS, ids=lambda file: str(file.relative_to(FOLDER)))
def test_private_names_are_in_one_room(file):
    # Without this the next upgrade breaks where nobody looks.
    assert strangers(ast.parse(file.read_text())) == set()


def reader(tmp_path: Path, **functions) -> input_reader.InputReader:
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        writer.write(b"record")
    params = config_definitions.DataConfig(
        input_path=f"{tmp_path}/*.tfrecord", global_batch_size=1, is_training=True
    )
    return input_reader.InputReader(params, **functions)


def test_a_reader_has_the_stages_that_we_know(tmp_path):
    # A new one would be skipped in silence: records would be decoded in another way than officially.
    assert set(vars(reader(tmp_path))) == READER_HAS


def test_a_reading_says_what_a_reader_was_made_with(tmp_path):
    functions = {
        name: lambda value: value for name in ("decoder_fn", "parser_fn", "postprocess_fn")
    }
    read = upstream.reading(reader(tmp_path, **functions))
    assert read.stages == (functions["decoder_fn"], functions["parser_fn"])
    assert read.postprocess is functions["postprocess_fn"] and not read.is_altered
    for name in ("combine_fn", "sample_fn", "filter_fn", "transform_and_batch_fn"):
        assert upstream.reading(reader(tmp_path, **{name: len})).is_altered, name


def test_readers_read_with_ours_inside_and_officially_after(tmp_path):
    # Else the order of the data would be the official one, which no restart can resume.
    with upstream.reading_with(lambda official, reader, context, dataset: (context, dataset)):
        assert reader(tmp_path).read("context") == ("context", None)
    assert READER.read.__qualname__ == "InputReader.read"


def branch(value):
    if value > 0:
        return value
    return -value


def test_autograph_leaves_what_is_marked_plain():
    # Else every wrapper is rewritten: 50 ms to 300 ms each, and nothing says so.
    plain = upstream.plain(lambda value: branch(value))
    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        tf.function(plain).get_concrete_function(tf.TensorSpec([]))


def test_autograph_rewrites_what_a_plain_function_converts():
    plain = upstream.plain(lambda value: upstream.converted(branch)(value))
    assert tf.function(plain)(tf.constant(-2.0)).numpy() == 2.0


# For each replaced operation a Python function of TensorFlow's that must go through it.
DRAWS = {
    "random_uniform": lambda: tf.random.uniform([2]),
    "random_uniform_int": lambda: tf.random.uniform([2], 0, 9, tf.int32),
    "random_standard_normal": lambda: tf.random.normal([2]),
    "truncated_normal": lambda: tf.random.truncated_normal([2]),
    "random_shuffle": lambda: tf.random.shuffle(tf.range(9)),
    "multinomial": lambda: tf.random.categorical([[0.0, 0.0]], 2),
    "random_gamma": lambda: tf.random.gamma([2], 0.5),
    "sample_distorted_bounding_box_v2": lambda: tf.image.sample_distorted_bounding_box(
        [32, 32, 3], tf.zeros([1, 0, 4]), 0.1, use_image_if_no_bounding_boxes=True
    ),
}


def test_every_replaced_operation_has_its_twin():
    assert set(DRAWS) == set(upstream.RANDOM_OPERATIONS) == set(randomness.TWINS)


@pytest.mark.parametrize("name", DRAWS)
def test_tensorflow_draws_through_the_operations_that_we_replace(name):
    # One that goes another way is refused in every training that draws with it.
    @tf.function(autograph=False)
    def inside():
        with Draws(1, "step", tf.constant(3, tf.int64)):
            return DRAWS[name]()

    outside = tf.function(DRAWS[name], autograph=False).get_concrete_function()
    assert leftovers.in_graph(inside.get_concrete_function().graph) == []
    assert len(leftovers.in_graph(outside.graph)) == 1


def test_the_first_input_of_a_loop_counts_its_turns():
    # Another one there: every turn draws the same, in silence.
    @tf.function(autograph=False)
    def counted():
        outermost = tf.compat.v1.get_default_graph()

        def body(index, turns):
            (turn,) = upstream.loop_turns(tf.compat.v1.get_default_graph(), outermost)
            return index + 5, turns.write(index // 5, turn)

        turns = tf.TensorArray(tf.int32, 3)
        return tf.while_loop(lambda index, _: index < 15, body, [0, turns])[1].stack()

    assert counted().numpy().tolist() == [0, 1, 2]


def test_the_body_of_a_vectorized_loop_is_asked_for_its_configuration():
    assert upstream.takes_loop_config(lambda row, pfor_config: row)
    assert not upstream.takes_loop_config(lambda row: row)


def boxes(*shape: int) -> tf.Tensor:
    corners = tf.random.stateless_uniform([*shape, 2, 2], [1, 2], 0, 100)
    return tf.concat([tf.reduce_min(corners, -2), tf.reduce_max(corners, -2)], -1)


def constants(graph: Any) -> Iterator[float]:
    """The numbers that stand in the functions of a graph."""
    for function in graph.library.function:
        for node in function.node_def:
            if node.op == "Const":
                yield from tf.make_ndarray(node.attr["value"].tensor).ravel().tolist()


@pytest.fixture
def sparing():
    """Undoes at the end what a test has had Model Garden do."""
    before = (nms.sorted_non_max_suppression_padded, box_list.tf, faster_rcnn_box_coder.tf)
    yield upstream.spare_work_on_boxes
    nms.sorted_non_max_suppression_padded, box_list.tf, faster_rcnn_box_coder.tf = before


@pytest.mark.parametrize(("count", "most"), [(64, 60), (200, 50), (30, 40), (520, 100)])
def test_suppression_in_a_tile_that_fits_gives_equal_bits(sparing, count, most):
    # Without this a detector compares 512 boxes with 512, however few there are.
    candidates = boxes(3, count)
    scores = tf.sort(tf.random.stateless_uniform([3, count], [3, 4]), direction="DESCENDING")

    def suppressed() -> tuple[bytes, list[float]]:
        run = tf.function(
            lambda: nms.sorted_non_max_suppression_padded(
                scores, candidates, max_output_size=most, iou_threshold=0.3
            )
        )
        graph = run.get_concrete_function().graph.as_graph_def()
        bits = b"".join(tensor.numpy().tobytes() for tensor in run())
        return bits, list(constants(graph))

    before, numbers = suppressed()
    assert 512 in numbers and any(before)
    sparing()
    after, numbers = suppressed()
    assert after == before
    assert (512 in numbers) == (count > 512)


def test_boxes_are_encoded_without_a_transposition_to_equal_bits(sparing):
    # oneDNN's transposition divides 1,344 boxes among threads that wait for each other.
    unknown = tf.TensorSpec([None, upstream.CORNERS])

    def encoded() -> tuple[bytes, set[str]]:
        coder = faster_rcnn_box_coder.FasterRcnnBoxCoder()
        listed = box_list.BoxList
        run = tf.function(lambda some, anchors: coder.encode(listed(some), listed(anchors)))
        traced = run.get_concrete_function(unknown, unknown)
        kinds = {operation.type for operation in traced.graph.get_operations()}
        return traced(boxes(1344), boxes(1344)[::-1]).numpy().tobytes(), kinds

    before, kinds = encoded()
    assert "Transpose" in kinds
    sparing()
    after, kinds = encoded()
    assert after == before and any(before)
    assert "Transpose" not in kinds


def test_functions_of_graphs_and_pipelines_can_be_looked_into():
    # Else a SavedModel that draws from a state would train, and never repeat.
    inner = tf.function(lambda value: value + tf.random.uniform([]))
    outer = tf.function(lambda value: inner(value)).get_concrete_function(tf.TensorSpec([]))
    (call,) = [node for node in outer.graph.get_operations() if "Call" in node.type]
    definition = upstream.function_definition(call.get_attr("f").name, outer.graph)
    assert "RandomUniform" in {node.op for node in definition.node_def}
    dataset = tf.data.Dataset.range(3).map(lambda value: -value).batch(2)
    (graph,) = upstream.dataset_graphs(dataset)
    assert "Neg" in {node.type for node in graph.get_operations()}
    assert upstream.operation_definition("RandomUniform").is_stateful
    assert upstream.operation_definition("NoSuchThing") is None


def test_a_strategy_says_what_is_this_process_s_own():
    devices = tf.distribute.OneDeviceStrategy("cpu:0")
    assert upstream.local_replicas(devices) == 1 and upstream.is_saver(devices)


def test_tensorflow_reads_the_list_of_checkpoints_that_we_write(tmp_path):
    # Else followers restart from the first step, and are refused; a repaired run resumes from a damaged checkpoint.
    (tmp_path / "ckpt-2.index").touch()
    upstream.write_state(tmp_path, [str(tmp_path / "ckpt-2"), str(tmp_path / "ckpt-1")])
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert state.model_checkpoint_path == str(tmp_path / "ckpt-2")
    assert [Path(path).name for path in state.all_model_checkpoint_paths] == ["ckpt-1", "ckpt-2"]
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-2")


def test_a_checkpoint_holds_its_step_where_we_look(tmp_path):
    # Else no checkpoint is found whole, and every run starts anew.
    step = tf.Variable(7, dtype=tf.int64)
    prefix = tf.train.Checkpoint(global_step=step).write(str(tmp_path / "ckpt-7"))
    assert tf.train.load_checkpoint(prefix).get_tensor(upstream.SAVED_STEP) == 7
    source = inspect.getsource(base_trainer.Trainer.__init__)
    assert "global_step=self.global_step" in source  # under the name that we look for


def test_the_best_checkpoint_s_figures_lie_where_we_look(tmp_path):
    exporter = upstream.BestExporter(str(tmp_path), "accuracy", "higher")
    assert exporter.folder == tmp_path and exporter.is_best({"accuracy": 0.1})
    exporter.set_best({"accuracy": 0.5})
    assert exporter.is_best({"accuracy": 0.6}) and not exporter.is_best({"accuracy": 0.4})
    exporter.export_best_eval_metric({"accuracy": 0.5}, 3)
    assert json.loads((tmp_path / upstream.BEST_INFO).read_text())[upstream.BEST_STEP] == 3


def model() -> tf_keras.Model:
    inputs = tf_keras.Input([2])
    return tf_keras.Model(inputs, tf_keras.layers.Dense(3)(inputs))


def test_the_outputs_of_a_model_s_layers_are_found():
    # Else memory is estimated without activations, and a batch that cannot fit is let pass.
    shapes = [tuple(tensor.shape) for tensor in upstream.layer_outputs(model())]
    assert shapes == [(None, 2), (None, 3)]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_an_optimizer_s_variables_are_there_before_its_first_step(name):
    # Else the first training step is traced twice.
    config = {"optimizer": {"type": name.lower()}, "learning_rate": {"type": "constant"}}
    config["learning_rate"]["constant"] = {"learning_rate": 0.1}
    factory = optimization.OptimizerFactory(optimization.OptimizationConfig(config))
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    variables = model().trainable_variables
    upstream.create_slots(optimizer, variables)
    before = len(optimizer.variables())
    optimizer.apply_gradients([(tf.ones_like(variable), variable) for variable in variables])
    assert before == len(optimizer.variables())


def test_moving_averages_are_found():
    # Else digests leave out what is evaluated, and a best checkpoint is evaluated with other weights.
    trained = model()
    optimizer = optimization.ExponentialMovingAverage(tf_keras.optimizers.legacy.SGD())
    optimizer.shadow_copy(trained)
    assert upstream.is_averaging(optimizer)
    assert len(upstream.averages(optimizer)) == len(trained.variables)
    weights = upstream.averaged_weights(optimizer)
    assert all(one is other for one, other in zip(weights, trained.variables, strict=True))
    assert upstream.averages(tf_keras.optimizers.legacy.SGD()) == []


def test_registered_experiments_are_listed():
    # Else no experiment is found.
    from official.vision import registry_imports  # noqa: F401  # Registers them.

    assert "retinanet" in upstream.registered_experiments()


def test_the_official_runner_saves_with_what_it_is_given():
    # Else followers save into a temporary folder, and after a restart begin anew while the chief resumes.
    runner = upstream.runner_saving_with(lambda runner: "ours")
    assert runner._maybe_build_checkpoint_manager(None) == "ours"
    assert "_maybe_build_checkpoint_manager" in RUNNER.__init__.__code__.co_names


def test_the_official_trainer_looks_methods_up_when_it_calls_them():
    # One that is kept from before we wrap it: no exact order, no draws tied to the step, no flight record.
    source = inspect.getsource(base_trainer.Trainer)
    assert "self.task.build_inputs" in source and "self.task.train_step" in source
    assert "self._checkpoint_manager" not in source
    assert "self.checkpoint_manager.save(" in inspect.getsource(orbit.Controller)


@pytest.mark.slow
def test_whether_onednn_is_in_force_can_be_read():
    # The determinism class would hold what was asked for, not what is.
    here = upstream.onednn_in_force()
    other = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0" if here else "1"}
    code = "from pipelines.training import upstream; print(upstream.onednn_in_force())"
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=other, cwd=FOLDER.parents[1], text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert process.stdout.split()[-1] == str(not here)


def test_the_wheel_says_which_libjpeg_it_decodes_with():
    # The determinism class would not name another decoder.
    version = upstream.libjpeg_version()
    assert version is not None and version[0].isdecimal()


@pytest.mark.parametrize("file", [*ROOMS, FOLDER / "upstream.py"], ids=lambda file: file.stem)
def test_importing_a_room_does_nothing_but_define(file):
    # Replacing TensorFlow's operations is `exact.install()`, where determinism is on.
    tree = ast.parse(file.read_text())
    defining = (
        ast.Import,
        ast.ImportFrom,
        ast.FunctionDef,
        ast.ClassDef,
        ast.AnnAssign,
        ast.Assign,
    )
    others = [node for node in tree.body if not isinstance(node, defining)]
    docstrings = [node for node in others if isinstance(node, ast.Expr)]
    assert others == docstrings[:1]
    targets = [
        target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
    ]
    assert all(isinstance(target, ast.Name | ast.Tuple) for target in targets)


def test_arguments_of_a_loaded_function_are_known_by_name(tmp_path):
    # Else a SavedModel in TF Hub's form is never asked for its feature maps.
    class Network(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
        def __call__(self, pixels, training=False, return_endpoints=False):
            return pixels

    tf.saved_model.save(Network(), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert "return_endpoints" in upstream.arguments_of(loaded.__call__)


def test_features_that_a_decoder_leaves_are_not_warned_of_and_other_words_are() -> None:
    decoder = tf_keras.Model({"3": (first := tf_keras.Input([2]))}, {"3": first * 2.0})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        upstream.expect_spare_features()
        decoder({"3": tf.zeros([1, 2]), "6": tf.zeros([1, 2])})
        assert not said
        decoder({"3": tf.zeros([1, 2]), "7": tf.zeros([1, 2])})
        assert len(said) == 1


def test_what_is_said_through_absl_heeds_the_variable_too(tmp_path) -> None:
    code = """
import sys
import pipelines
import tensorflow as tf
from pipelines.training import upstream

def cut(sizes):
    images, boxes = tf.ones([1, 8, 8, 3]), tf.zeros([1, 4])
    traced = tf.function(lambda *given: tf.nn.relu(tf.image.crop_and_resize(*given, sizes)))
    unknown = [tf.TensorSpec([None] * 4), tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int32)]
    traced.get_concrete_function(*unknown)(images, boxes, tf.zeros([1], tf.int32))

cut([56, 56])
sys.stderr.write("then\\n")
upstream.say_what_is_asked()
cut([28, 28])
"""
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    before, after = process.stderr.split("then\n")
    assert "PredictCost" in before
    assert "PredictCost" not in after
