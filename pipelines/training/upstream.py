"""Every name of TensorFlow, Keras, Model Garden and Orbit that they do not promise to keep, in this one room.

After an upgrade, `tests/training/test_upstream.py` says which of them has gone or has changed, and what breaks without it.
"""

import ctypes
import functools
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import tensorflow as tf
import tf_keras
from official.core import exp_factory, input_reader, train_lib, train_utils
from official.modeling import optimization
from official.vision.ops import nms
from official.vision.utils.object_detection import box_list, faster_rcnn_box_coder
from pycocotools import cocoeval
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.node_def_pb2 import NodeDef as NodeDef
from tensorflow.core.protobuf import trackable_object_graph_pb2
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.autograph.impl import api
from tensorflow.python.autograph.pyct import origin_info, transpiler
from tensorflow.python.eager import context
from tensorflow.python.framework import op_def_registry, ops
from tensorflow.python.ops import (
    control_flow_v2_func_graphs,
    gen_image_ops,
    gen_random_ops,
)
from tensorflow.python.ops.parallel_for import control_flow_ops
from tensorflow.python.util import _pywrap_util_port, tf_inspect
from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

from pipelines.system import durable

Function = TypeVar("Function", bound=Callable[..., object])


STATE_FILE = "checkpoint"  # TensorFlow's list of a folder's checkpoints
BEST_INFO = "info.json"  # beside the best checkpoint: its step and figures
BEST_STEP = "best_ckpt_global_step"  # the step, in there
SAVED_STEP = (
    "global_step/.ATTRIBUTES/VARIABLE_VALUE"  # the step that a checkpoint was saved at, inside it
)

CORNERS = 4  # numbers of a box

CONVERTED = "__autograph_generated_file"  # begins the name of a module that AutoGraph makes

# `absl::SetMinLogLevel` of the version that TensorFlow is built with, as its library spells it.
SET_LOG_LEVEL = "_ZN4absl12lts_2025012714SetMinLogLevelENS0_18LogSeverityAtLeastE"

AVERAGE = "average"  # the slot of a variable's moving average, in a checkpoint

# The modules through which TensorFlow's Python functions create the operations that draw at random.
RANDOM_OPERATIONS: dict[str, ModuleType] = {
    "random_uniform": gen_random_ops,
    "random_uniform_int": gen_random_ops,
    "random_standard_normal": gen_random_ops,
    "truncated_normal": gen_random_ops,
    "random_shuffle": gen_random_ops,
    "multinomial": gen_random_ops,
    "random_gamma": gen_random_ops,
    "sample_distorted_bounding_box_v2": gen_image_ops,
}


# What an evaluation says on its way


@contextmanager
def noted(owner: Any, name: str) -> Iterator[list[Any]]:
    """Inside, what a function of a module or an object returns is put into a list as well."""
    official = getattr(owner, name)
    returned: list[Any] = []

    @plain
    @functools.wraps(official)
    def function(*args: Any, **kwargs: Any) -> Any:
        returned.append(converted(official)(*args, **kwargs))
        return returned[-1]

    setattr(owner, name, function)
    try:
        yield returned
    finally:
        setattr(owner, name, official)


@contextmanager
def accumulated() -> Iterator[list[Any]]:
    """Inside, COCO's evaluators are put into a list once they have summed up their matches."""
    official = cocoeval.COCOeval.accumulate
    evaluations: list[Any] = []

    def accumulate(evaluation: Any, *args: Any, **kwargs: Any) -> None:
        official(evaluation, *args, **kwargs)
        evaluations.append(evaluation)

    cocoeval.COCOeval.accumulate = accumulate
    try:
        yield evaluations
    finally:
        cocoeval.COCOeval.accumulate = official


_official_suppression = nms.sorted_non_max_suppression_padded


# What TensorFlow computes with


def onednn_in_force() -> bool:
    """Whether convolutions and matrix products are oneDNN's own operations in this process."""
    return bool(_pywrap_util_port.IsMklEnabled())


def libjpeg_version() -> str | None:
    """The libjpeg-turbo that TensorFlow decodes with, as the headers in its wheel say; None where they are not there."""
    include = Path(tf.sysconfig.get_include())
    header = include / "external" / "libjpeg_turbo" / "jconfig.h"
    text = header.read_text() if header.exists() else ""
    found = re.search(r"LIBJPEG_TURBO_VERSION\s+(\S+)", text)
    return found[1] if found else None


def has_begun() -> bool:
    """Whether TensorFlow has set up devices and threads in this process, which a copy of it would lack."""
    return bool(context.context()._initialized)


def expect_spare_features() -> None:
    """Has Keras say nothing of features that a decoder leaves: EfficientNet's last, of level 6, is for classifiers alone."""
    warnings.filterwarnings("ignore", r"Input dict contained keys \['6'\]", UserWarning)


def say_what_is_asked() -> None:
    """Has what TensorFlow says through absl heed TF_CPP_MIN_LOG_LEVEL too: a line for each graph with Mask R-CNN's cut-outs."""
    said = getattr(ctypes.CDLL(None), SET_LOG_LEVEL, None)
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "")
    if said and level.isdigit():
        said(int(level))


def leave_operations_apart() -> None:
    """Has graphs that run from now on keep each operation by itself, where TensorFlow would fuse several into one."""
    tf.config.optimizer.set_experimental_options({"remapping": False})


# AutoGraph


def plain(function: Function) -> Function:
    """Marks a function that AutoGraph leaves as it is written, and all that it calls, except through `converted`.

    AutoGraph rewrites each function that it traces, at some 50 ms apiece. Ours need none of it; the official ones that
    they call do.
    """
    function.autograph_info__ = {}  # type: ignore[attr-defined]
    return function


def converted(function: Function) -> Function:
    """What AutoGraph makes of a function, where the caller is traced; to be called in a `plain` one.

    Inside `Dataset.map` a plain function is traced with AutoGraph off, and a parser that asks `if` of a tensor would fail.
    """
    return api.tf_convert(function, ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED))


# Conversions that are kept


Load = Callable[[Callable[..., Any], Any], tuple[Path, list] | None]
Store = Callable[[Callable[..., Any], Any, str, list], None]


def keep_conversions(load: Load, store: Store) -> None:
    """Has AutoGraph ask for a function that was converted before, and give one away that it converts itself.

    Args:
        load: given a function and AutoGraph's options, returns a file of Python that makes what it is converted to, and its
            origins; None where it was not converted before.
        store: is given the function, the options, the text for such a file, and the origins: for each of its lines that has
            one the line, then `origin_info.OriginInfo` as a list, its location as three items in front.
    """
    converter = api._TRANSPILER
    official = type(converter).transform_function

    def transform_function(function: Any, context: Any) -> Any:
        options = converter.get_caching_key(context)
        kept = converter._cache
        with converter._cache_lock:
            is_new = not kept.has(function, options)
            stored = load(function, options) if is_new else None
            if stored:
                kept[function][options] = _loaded(converter, function, *stored)
            result = official(converter, function, context)
            if is_new and not stored:
                store(function, options, *_described(kept[function][options]))
        return result

    converter.transform_function = transform_function


def _loaded(converter: Any, function: Any, file: Path, origins: list) -> Any:
    """What AutoGraph makes converted functions with, of a stored one."""
    name = f"{CONVERTED}{file.stem}"
    loader = SourceFileLoader(name, str(file))
    module = ModuleType(name)
    module.__file__ = str(file)
    loader.exec_module(module)
    sys.modules[name] = module  # As AutoGraph does.
    free = function.__code__.co_freevars
    factory = transpiler._PythonFnFactory(module.NAME, free, converter.get_extra_locals())
    factory._unbound_factory = module.OUTER()
    factory.module = module
    factory.source_map = {}
    for line, *place, within, text, comment in origins:
        origin = origin_info.OriginInfo(origin_info.Location(*place), within, text, comment)
        factory.source_map[origin_info.LineLocation(str(file), line)] = origin
    return factory


def _described(factory: Any) -> tuple[str, list]:
    """The text of a converted function, and where its lines come from."""
    origins = []
    for place, origin in factory.source_map.items():
        origins.append([place.lineno, *origin.loc, *origin[1:]])
    text = Path(factory.module.__file__).read_text(encoding="utf-8")
    outer, *_ = (name for name, value in vars(factory.module).items() if inspect.isfunction(value))
    return f"{text}\nNAME = {factory._name!r}\nOUTER = {outer}\n", origins


def conversion_options(options: Any) -> list[str]:
    """AutoGraph's options as text, the same in each process."""
    *flags, features = options.as_tuple()
    return [*map(str, flags), *sorted(map(str, features))]


# Random operations and loops


def replace_operation(name: str, replacement: Callable[[Callable[..., Any]], Any]) -> None:
    """Puts what `replacement` makes of a random operation in its place, for the whole process."""
    module = RANDOM_OPERATIONS[name]
    setattr(module, name, replacement(getattr(module, name)))


def replace_vectorized_loop(replacement: Callable[[Callable[..., Any]], Any]) -> None:
    """Puts what `replacement` makes of the loop under `tf.vectorized_map` in its place, for the whole process."""
    control_flow_ops.pfor = replacement(control_flow_ops.pfor)


def takes_loop_config(loop_body: Callable[..., Any]) -> bool:
    """Whether the body of a vectorized loop takes `pfor_config`, which is seen by the name of its argument."""
    return bool(control_flow_ops._loop_fn_has_config(loop_body))


def loop_turns(graph: Any, outermost: Any) -> Iterator[tf.Tensor]:
    """The counters of the while loops around the place that is traced now, from the inside up to `outermost`."""
    while graph is not None and graph is not outermost:
        if isinstance(graph, control_flow_v2_func_graphs.WhileBodyFuncGraph):
            yield graph.inputs[0]  # A body is traced once; its first input counts the turns.
        graph = getattr(graph, "outer_graph", None)


# Boxes


def spare_work_on_boxes() -> None:
    """Has Model Garden suppress and encode boxes with less work, to equal bits, in the whole process."""
    nms.sorted_non_max_suppression_padded = _suppress
    box_list.tf = faster_rcnn_box_coder.tf = _Lent(tf.__name__)


@plain
def _suppress(scores: tf.Tensor, boxes: tf.Tensor, max_output_size: Any, **options: Any) -> Any:
    """The official suppression, in a tile that fits: it compares all with all, and fills up to 512 boxes with empty ones."""
    official_size = nms.NMS_TILE_SIZE
    count = boxes.shape[1]
    if count and isinstance(max_output_size, int):
        # One empty box more than there are: what is short of `max_output_size` is taken from the last.
        nms.NMS_TILE_SIZE = min(official_size, max(count, max_output_size) + 1)
    try:
        return converted(_official_suppression)(scores, boxes, max_output_size, **options)
    finally:
        nms.NMS_TILE_SIZE = official_size


class _Lent(ModuleType):
    """TensorFlow as modules of others see it: all of it, but for one function."""

    @staticmethod
    @plain
    def transpose(a: tf.Tensor, **options: Any) -> tf.Tensor:
        """What `tf.transpose` gives; of a list of corners without oneDNN, whose two threads wait for each other."""
        if options or a.shape.rank != 2 or CORNERS not in a.shape:
            return tf.transpose(a, **options)
        axis = a.shape.as_list().index(CORNERS)
        return tf.stack(tf.unstack(a, axis=axis), axis=1 - axis)

    def __getattr__(self, name: str) -> Any:
        return getattr(tf, name)


# Graphs and datasets, to look into


@functools.cache
def operation_definition(kind: str) -> Any:
    """How TensorFlow defines operations of a type; None for an unknown one."""
    return op_def_registry.get(kind)


def function_definition(name: str, graph: tf.Graph) -> FunctionDef:
    """A function's definition: the graph holds those that it calls, the process those that these call."""
    function = graph._functions.get(name)
    if function is not None:
        return function.definition
    return context.context().get_function_def(name)


def dataset_graphs(dataset: tf.data.Dataset) -> Iterator[tf.Graph]:
    """The graphs of all functions in an input pipeline, the last stage first."""
    for stage in dataset._functions():
        yield stage.function.graph
    for earlier in dataset._inputs():
        yield from dataset_graphs(earlier)


def flops(graph: tf.Graph, operation: tf.Operation) -> int:
    """Floating-point operations of an operation, as far as TensorFlow has a formula for its type and knows its shapes."""
    return int(ops.get_stats_for_node_def(graph, operation.node_def, "flops").value or 0)


def planes(trace: bytes) -> Iterator[Any]:
    """The parts of a trace that TensorFlow's profiler has written."""
    yield from XSpace.FromString(trace).planes


# Strategies and checkpoints


def local_replicas(strategy: tf.distribute.Strategy) -> int:
    """How many replicas this process has."""
    return len(strategy.extended.worker_devices)


def is_saver(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one whose checkpoints count."""
    return bool(strategy.extended.should_checkpoint)


def write_state(folder: Path, prefixes: Sequence[str]) -> None:
    """Writes TensorFlow's list of a folder's checkpoints, given the newest first.

    Checkpoints are listed by name, without the folder, so that it may be moved.
    """
    names = [Path(prefix).name for prefix in prefixes]
    lines = [f'model_checkpoint_path: "{names[0]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in reversed(names)]
    durable.write_whole(folder / STATE_FILE, "\n".join(lines) + "\n")


@dataclass
class Saved:
    """An object in a checkpoint: what belongs to it, and its value where it is a variable."""

    children: "dict[str, Saved]" = field(default_factory=dict)
    key: str = ""
    read: Callable[[], Any] | None = None
    is_average: bool = False

    def value(self) -> Any:
        """The variable's value, as NumPy holds it."""
        return self.read() if self.read else None


def saved_objects(prefix: str, averages: bool) -> Saved:
    """The tree of objects in a checkpoint.

    Args:
        averages: whether a variable of which a moving average is saved has that one's value.
    """
    reader = tf.train.load_checkpoint(prefix)
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    objects = [Saved() for _ in graph.nodes]
    for saved, node in zip(objects, graph.nodes, strict=True):
        for child in node.children:
            saved.children[child.local_name] = objects[child.node_id]
        for attribute in node.attributes:
            if attribute.name == "VARIABLE_VALUE":
                saved.key = attribute.checkpoint_key
                saved.read = functools.partial(reader.get_tensor, saved.key)
    if averages:
        _take_averages(graph, objects)
    return objects[0]


def _take_averages(graph: Any, objects: list[Saved]) -> None:
    for node in graph.nodes:
        for slot in node.slot_variables:
            if slot.slot_name == AVERAGE:
                variable = objects[slot.original_variable_node_id]
                variable.read = objects[slot.slot_variable_node_id].read
                variable.is_average = True


def tracked(owner: Any) -> Mapping[str, Any]:
    """What belongs to an object, by the names that a checkpoint gives it."""
    return tf.train.TrackableView.children(owner)


# Keras


def layer_outputs(model: Any) -> Iterator[Any]:
    """The output tensors of every call of every layer, in those parts of a model that state their graph."""
    for part in (model, *model.submodules):
        if not isinstance(part, tf_keras.Model) or not part._is_graph_network:
            continue
        for layer in part.layers:
            for node in layer._inbound_nodes:
                yield from tf.nest.flatten(node.outputs)


def create_slots(optimizer: Any, variables: list[tf.Variable]) -> None:
    """Creates an optimizer's variables, as its first step would: a step that creates any is traced twice."""
    create = getattr(optimizer, "_create_all_weights", None) or getattr(optimizer, "build", None)
    if create:
        create(variables)


def trace_again(trainer: Any) -> None:
    """Has a trainer trace its training step anew before the next block of steps: what is trainable has changed."""
    trainer._train_loop_fn = None


def quantize_with(connections: Callable[[Any], list]) -> None:
    """Has the quantizer of Keras models take a layer's inputs from what `connections` makes of each of its nodes."""
    from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import (
        model_transformer,  # Seconds, for quantization alone.
    )

    def inbound_nodes(self: Any, layer: Mapping[str, Any]) -> Iterator[list]:
        return map(connections, layer["inbound_nodes"])

    model_transformer.ModelTransformer._inbound_node_generator = inbound_nodes


# Model Garden


def registered_experiments() -> list[str]:
    """Names under which experiments are registered."""
    return sorted(exp_factory._REGISTERED_CONFIGS)


def is_averaging(optimizer: Any) -> bool:
    """Whether an optimizer keeps moving averages of the weights, which an evaluation puts in their place."""
    return isinstance(optimizer, optimization.ExponentialMovingAverage)


def averages(optimizer: Any) -> list[tf.Variable]:
    """The moving averages of the weights; none where the optimizer keeps none."""
    return list(optimizer._average_weights) if is_averaging(optimizer) else []


def averaged_weights(optimizer: Any) -> list[tf.Variable]:
    """The weights that `averages` are kept of, in the same order."""
    return list(optimizer._model_weights) if is_averaging(optimizer) else []


class BestExporter(train_utils.BestCheckpointExporter):
    """The official exporter of the best checkpoint, with names for what a subclass needs of its insides."""

    @property
    def folder(self) -> Path:
        """Where it saves."""
        return Path(self._export_dir)

    def is_best(self, figures: Mapping[str, Any]) -> bool:
        """Whether the figures of an evaluation are better than the best so far, or the first."""
        best = self._best_ckpt_logs
        return best is None or bool(self._new_metric_is_better(best, figures))

    def set_best(self, figures: Mapping[str, Any]) -> None:
        """Takes figures for the best so far."""
        self._best_ckpt_logs = figures


def runner_saving_with(
    keeper: Callable[[train_lib.OrbitExperimentRunner], tf.train.CheckpointManager],
) -> type[train_lib.OrbitExperimentRunner]:
    """The official runner, saving with what `keeper` builds, where its own would save as only the chief should."""

    class Runner(train_lib.OrbitExperimentRunner):
        _maybe_build_checkpoint_manager = keeper

    return Runner


@dataclass(frozen=True)
class Unmixed:
    """A reader's sampling of a data set that mixes no examples.

    Attributes:
        apply: from a data set to a data set, as the reader calls it.
        each: what that does with one example.
    """

    apply: Callable[..., Any]
    each: Callable[..., Any]

    def __call__(self, dataset: Any) -> Any:
        """What the reader asks for."""
        return self.apply(dataset)


@dataclass(frozen=True)
class Reading:
    """What an official `InputReader` would do, in the order in which its `read` does it.

    Attributes:
        files: the record files; a mapping where several data sets are mixed.
        stages: decoder and parser, one example each; those that there are.
        postprocess: takes a batch.
        is_altered: whether examples are combined, sampled, filtered, batched in another way or read by a service.
    """

    is_training: bool
    files: Any
    dataset_fn: Any
    stages: tuple[Callable[..., Any], ...]
    postprocess: Callable[..., Any] | None
    batch_size: int
    is_cached: bool
    prefetch: int
    is_altered: bool


def reading(reader: input_reader.InputReader) -> Reading:
    """Reads off what a reader was made with."""
    sample = reader._sample_fn
    each = sample.each if isinstance(sample, Unmixed) else None
    altering = (
        reader._combine_fn,
        None if isinstance(sample, Unmixed) else sample,
        reader._filter_fn,
        reader._transform_and_batch_fn,
        reader._enable_tf_data_service,
    )
    stages = (reader._decoder_fn, each, reader._parser_fn)
    return Reading(
        is_training=reader._is_training,
        files=reader._matched_files,
        dataset_fn=reader._dataset_fn,
        stages=tuple(stage for stage in stages if stage),
        postprocess=reader._postprocess_fn,
        batch_size=reader._global_batch_size,
        is_cached=reader._cache,
        prefetch=reader._prefetch_buffer_size,
        is_altered=any(altering),
    )


@contextmanager
def reading_with(read: Callable[..., tf.data.Dataset]) -> Iterator[None]:
    """Inside, `read(official, reader, input_context, dataset)` stands for the official `InputReader.read`."""
    official = input_reader.InputReader.read

    def replacement(reader: Any, input_context: Any = None, dataset: Any = None) -> tf.data.Dataset:
        return read(official, reader, input_context, dataset)

    input_reader.InputReader.read = replacement
    try:
        yield
    finally:
        input_reader.InputReader.read = official


# What a loaded SavedModel answers to


def arguments_of(function: Callable[..., object]) -> tuple[str, ...]:
    """Names of a traced function's arguments; `inspect` sees only `*args, **kwargs` of a loaded one."""
    known = tf_inspect.getfullargspec(function)
    return (*known.args, *known.kwonlyargs)
