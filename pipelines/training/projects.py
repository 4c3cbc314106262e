"""Model Garden's projects: which modules register an experiment, and what of a project has to be held to a CPU's rules."""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import tensorflow as tf
from official.core import input_reader
from official.vision.dataloaders import tf_example_decoder

from pipelines.training import upstream

HOME = "official.projects"
# The modules below it that register a project's experiments with all that they are made of; the slowest to import last.
REGISTERING = {
    "maxvit": ("maxvit.registry_imports",),
    "yolo": ("yolo.common.registry_imports",),
    "detr": ("detr.configs.detr", "detr.tasks.detection", "detr.optimization"),
    "centernet": ("centernet.common.registry_imports",),
    "deepmac_maskrcnn": ("deepmac_maskrcnn.common.registry_imports",),
    "movinet": (
        "movinet.configs.movinet",
        "movinet.modeling.movinet",
        "movinet.modeling.movinet_model",
    ),
    "video_ssl": (
        "video_ssl.configs.video_ssl",
        "video_ssl.tasks.pretrain",
        "video_ssl.tasks.linear_eval",
        "video_ssl.modeling.video_ssl_model",
    ),
    "volumetric_models": ("volumetric_models.registry_imports",),
    "panoptic": ("panoptic.tasks.panoptic_deeplab", "panoptic.tasks.panoptic_maskrcnn"),
    "maskconver": ("maskconver.tasks.maskconver", "maskconver.tasks.multiscale_maskconver"),
    "yt8m": ("yt8m.configs.yt8m", "yt8m.tasks.yt8m_task"),
    "qat": ("qat.vision.registry_imports",),
}


def register(is_registered: Callable[[], bool]) -> None:
    """Imports one project after the other until what is looked for is registered.

    Of a project that is not whole in the wheel, the modules before the one that is missing stay imported. One that was
    imported by name, as published recipes do, is repaired too.
    """
    for project in REGISTERING:
        if is_registered():
            break
        trouble(project)
    for project in REPAIRS:
        if any(f"{HOME}.{module}" in sys.modules for module in REGISTERING[project]):
            trouble(project)


@functools.cache
def trouble(project: str) -> str | None:
    """Imports a project; why it cannot be, None where it can."""
    try:
        for module in REGISTERING[project]:
            importlib.import_module(f"{HOME}.{module}")
    except ImportError as error:
        return f"{type(error).__name__}: {error}"
    for repair in REPAIRS.get(project, ()):
        repair()
    return None


def _bound_yolo() -> None:
    """Has YOLO's loss leave out padding, which it writes to place -1.

    An accelerator ignores such places, a CPU refuses them ("indices[0] = [-1, -1, -1, -1] does not index into shape").
    """
    loss: Any = importlib.import_module(f"{HOME}.yolo.ops.loss_utils")
    loss.tf = _WithoutPadding()


class _WithoutPadding(ModuleType):
    """TensorFlow as it is, but for two operations, which on a CPU get no places below zero."""

    def __init__(self) -> None:
        super().__init__("tensorflow")

    def __getattr__(self, name: str) -> Any:
        return getattr(tf, name)

    @staticmethod
    def tensor_scatter_nd_update(grid: Any, places: Any, values: Any) -> Any:
        """As TensorFlow's."""
        return tf.tensor_scatter_nd_update(grid, *_inside(places, values))

    @staticmethod
    def tensor_scatter_nd_max(grid: Any, places: Any, values: Any) -> Any:
        """As TensorFlow's."""
        return tf.tensor_scatter_nd_max(grid, *_inside(places, values))


def _inside(places: Any, values: Any) -> tuple[Any, Any]:
    if not on_cpu():
        return places, values
    are_inside = tf.reduce_all(places >= 0, axis=-1)
    return tf.boolean_mask(places, are_inside), tf.boolean_mask(values, are_inside)


def _tell_unmixed() -> None:
    """Has a mosaic that is switched off say so: it then does with each picture alone what it does, and mixes none."""
    mosaic = importlib.import_module(f"{HOME}.yolo.ops.mosaic").Mosaic
    official = mosaic.mosaic_fn

    def mosaic_fn(self: Any, is_training: bool = True) -> Any:
        apply = official(self, is_training)
        is_mixing = is_training and self._mosaic_frequency > 0.0
        return apply if is_mixing else upstream.Unmixed(apply, self._add_param)

    mosaic.mosaic_fn = mosaic_fn


def _compute_mish_alone() -> None:
    """Has a CPU leave Mish out of what it fuses: oneDNN has no kernel of batch norm and Mish ("Fusion is not implemented")."""
    layer: Any = importlib.import_module(f"{HOME}.yolo.modeling.layers.nn_blocks").ConvBN
    official = layer.build

    def build(self: Any, input_shape: Any) -> None:
        official(self, input_shape)
        if self._activation == "mish" and on_cpu():
            upstream.leave_operations_apart()

    layer.build = build


def _bound_centernet() -> None:
    """Has CenterNet's loss read place 0 for padding, for which it asks at place -1; it counts by a factor of zero."""
    loss: Any = importlib.import_module(f"{HOME}.centernet.ops.loss_ops")
    official = loss.get_batch_predictions_from_indices

    def bounded(batch_predictions: Any, indices: Any) -> Any:
        places = tf.maximum(indices, 0) if on_cpu() else indices
        return official(batch_predictions, places)

    loss.get_batch_predictions_from_indices = bounded


def _build_detr() -> None:
    """Has DETR come with its variables, which it would create in its first step: what is to be restored has to be there."""
    task = importlib.import_module(f"{HOME}.detr.tasks.detection").DetectionTask
    official = task.build_model

    def build_model(self: Any) -> Any:
        model = official(self)
        model(tf.zeros([1, *self.task_config.model.input_size]), training=False)
        return model

    task.build_model = build_model


def _feed_detr() -> None:
    """Has the first version of DETR read records too: it knows TFDS's pictures alone, and makes its batches itself."""
    loader = importlib.import_module(f"{HOME}.detr.dataloaders.coco").COCODataLoader
    official = loader.load
    decoder = tf_example_decoder.TfExampleDecoder()

    def load(self: Any, input_context: Any = None) -> Any:
        if self._params.tfds_name:
            return official(self, input_context)

        def parsed(record: Any) -> Any:
            return self.preprocess(_as_of_tfds(decoder.decode(record)))

        reader = input_reader.InputReader(self._params, parser_fn=parsed)
        return reader.read(input_context)

    loader.load = load


def _scale_detr() -> None:
    """Has DETR's evaluation hold what it found against the truth in pixels, as it holds the truth.

    Its model answers in fractions of the picture, which the official step hands on as they are: whatever it learned, AP was 0.
    """
    task = importlib.import_module(f"{HOME}.detr.tasks.detection").DetectionTask
    official = task.validation_step

    def validation_step(self: Any, inputs: Any, model: Any, metrics: Any = None) -> Any:
        logs = official(self, inputs, model, metrics)
        found = logs["predictions"]
        size = found["image_info"][:, 1:2, :]
        found["detection_boxes"] *= tf.tile(size, [1, 1, 2])
        return logs

    task.validation_step = validation_step


def _as_of_tfds(decoded: Mapping[str, Any]) -> dict[str, Any]:
    """A decoded record as TFDS's `coco` gives it: classes from 0, a number for its name."""
    objects = {
        "bbox": decoded["groundtruth_boxes"],
        "label": decoded["groundtruth_classes"] - 1,
        "is_crowd": decoded["groundtruth_is_crowd"],
    }
    number = tf.strings.to_number(decoded["source_id"], tf.int64)
    return {"image": decoded["image"], "image/id": number, "objects": objects}


def _read_nested_inputs() -> None:
    """Has the quantizer read layers that are called with dictionaries inside of tuples, as heads of segmentation are.

    It looks for a layer's name at place 0 of each input, which a dictionary does not have ("KeyError: 0").
    """
    upstream.quantize_with(lambda node: list(_connections(node)))


def _connections(node: Any) -> Iterator[list]:
    """The inputs of a layer, however deep they lie; each begins with the name of a layer."""
    if isinstance(node, list) and node and isinstance(node[0], str):
        yield node
    elif isinstance(node, list | dict):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _connections(inner)


def _size_linear_heads() -> None:
    """Has a linear evaluation give one output for each class of its data.

    Its factories give 600 whatever the data, those for Kinetics-400 too, and none but Kinetics-600 could be told apart.
    """
    task = importlib.import_module(f"{HOME}.video_ssl.tasks.linear_eval").VideoSSLEvalTask
    official = task.build_model

    def build_model(self: Any) -> Any:
        classes = self.task_config.train_data.num_classes
        self.task_config.model.projection_dim = classes
        return official(self)

    task.build_model = build_model


def _evaluate_contrast() -> None:
    """Has a pretraining on clips without labels tell on clips that it has not seen what it tells in training.

    The official task leaves its evaluation out ("NotImplementedError"); loss and figures are its own.
    """
    task = importlib.import_module(f"{HOME}.video_ssl.tasks.pretrain").VideoSSLPretrainTask

    def validation_step(self: Any, inputs: Any, model: Any, metrics: Any = None) -> Any:
        outputs = tf.cast(model(inputs[0]["image"], training=False), tf.float32)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        logs, figures = self.build_losses(outputs, replicas, model)
        self.process_metrics(metrics or (), figures)
        return logs

    task.validation_step = validation_step


def on_cpu() -> bool:
    """Whether nothing but CPUs computes in this process."""
    devices = tf.config.list_logical_devices()
    return all(device.device_type == "CPU" for device in devices)


REPAIRS = {
    "yolo": (_bound_yolo, _tell_unmixed, _compute_mish_alone),
    "centernet": (_bound_centernet,),
    "detr": (_build_detr, _feed_detr, _scale_detr),
    "video_ssl": (_size_linear_heads, _evaluate_contrast),
    "qat": (_read_nested_inputs,),
}
