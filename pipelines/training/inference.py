"""A recorded run's model at work: its weights, the official preprocessing of its evaluations, and one forward pass.

A model outside is to see what it saw when it was measured, so pictures come through the official evaluation parser itself.
"""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from official.core import (
    config_definitions,
    task_factory,
    train_utils,
)
from official.vision.tasks import (
    image_classification,
    maskrcnn,
    retinanet,
    semantic_segmentation,
)

from pipelines.training import checkpoints, official, upstream
from pipelines.usage import UsageError

# Their models' answers are read by what shows them pictures.
READ = (
    image_classification.ImageClassificationTask,
    maskrcnn.MaskRCNNTask,
    retinanet.RetinaNetTask,
    semantic_segmentation.SemanticSegmentationTask,
)
JPEG = b"\xff\xd8"  # begins every JPEG

Parser = Callable[[Mapping[str, Any]], tuple[tf.Tensor, Any]]


@dataclass(frozen=True, eq=False)
class Restored:
    """A model with the weights of a checkpoint.

    Attributes:
        task: Model Garden's task.
        step: that the checkpoint was saved at.
    """

    params: config_definitions.ExperimentConfig
    task: Any
    model: Any
    checkpoint: str
    step: int

    @tf.function(reduce_retracing=True)
    def forward(self, images: tf.Tensor, shapes: Mapping[str, Any]) -> dict[str, Any]:
        """What the model says of a batch: `logits`, or what Model Garden's detectors return.

        Args:
            images: as `Preprocessing` makes them.
            shapes: keywords that a detector is called with: `anchor_boxes`, `image_shape`.
        """
        returned = self.model(images, training=False, **shapes)
        return dict(returned) if isinstance(returned, Mapping) else {"logits": returned}


def refuse_unread(params: config_definitions.ExperimentConfig) -> None:
    """Refuses a model whose answers nothing here reads, before it is built.

    Raises:
        UsageError: it is one of a project with words of its own.
    """
    kind = type(params.task)
    if not issubclass(task_factory.get_task_cls(kind), READ):
        raise UsageError(
            f"run: its model is a {kind.__name__}'s, whose answers predict, export and serve do not read; "
            "they know Model Garden's classifiers, RetinaNet, Mask R-CNN and segmenters; what it is worth: "
            "make evaluate RUN=<run>"
        )


def restore(params: config_definitions.ExperimentConfig, checkpoint: str) -> Restored:
    """Builds the official model with the weights that an evaluation would have used, moving averages in their place."""
    official.prepare(params)
    task = task_factory.get_task(params.task)
    trainer = train_utils.create_trainer(
        params,
        task,
        train=False,
        evaluate=False,
    )
    # A checkpoint without one of the model's weights would leave it as it was drawn.
    weights = tf.train.Checkpoint(model=trainer.model).read(checkpoint)
    weights.expect_partial().assert_existing_objects_matched()
    if not checkpoints.is_best(checkpoint):
        _put_averages(trainer, checkpoint)
    step = checkpoints.stored_step(checkpoint) or 0
    return Restored(
        params,
        task,
        trainer.model,
        checkpoint,
        step,
    )


def _put_averages(trainer: Any, checkpoint: str) -> None:
    """Puts the moving averages of a checkpoint, where it has any, in the place of the weights that they are kept of.

    A best checkpoint needs none of it: it was saved in the midst of an evaluation, with the averages in the model.
    """
    if not upstream.is_averaging(trainer.optimizer):
        return
    trainer.checkpoint.restore(checkpoint).expect_partial()
    weights = upstream.averaged_weights(trainer.optimizer)
    for average, weight in zip(upstream.averages(trainer.optimizer), weights, strict=True):
        weight.assign(average)


class Preprocessing:
    """From the bytes of a JPEG or PNG to what the model is shown, by the official parser of evaluations."""

    def __init__(self, restored: Restored, kind: str) -> None:
        """Takes the parser of the run's own validation data.

        Args:
            kind: name of the vision task, as in `tasks`.
        """
        self._data = restored.params.task.validation_data
        self._decoded = DECODED[kind]
        self._parse = _parser(restored.task, self._data)
        self._parse_other = self._parse
        if getattr(self._data, "decode_jpeg_only", False):
            any_format = copy.deepcopy(self._data)
            any_format.override({"decode_jpeg_only": False})
            self._parse_other = _parser(restored.task, any_format)

    def __call__(self, content: tf.Tensor) -> tuple[tf.Tensor, dict[str, Any]]:
        """One picture, and what is known beside it: `image_info` of resized ones, `anchor_boxes` for detectors."""
        decoded = self._decoded(content, self._data)
        if self._parse_other is self._parse:
            return _shown(self._parse(decoded))
        is_jpeg = tf.equal(tf.strings.substr(content, 0, len(JPEG)), JPEG)
        return tf.cond(
            is_jpeg,
            lambda: _shown(self._parse(decoded)),
            lambda: _shown(self._parse_other(decoded)),
        )


def _shown(
    parsed: tuple[tf.Tensor, Any],
) -> tuple[tf.Tensor, dict[str, Any]]:
    image, labels = parsed
    if not isinstance(labels, Mapping):
        return image, {}
    known = ("image_info", "anchor_boxes")
    return image, {name: labels[name] for name in known if name in labels}


def _parser(task: Any, data: Any) -> Parser:
    """The parser that a task reads evaluation data with; it is called with what the decoder before it returns."""
    stages: list[Callable[..., Any]] = []

    def read(_: Any, reader: Any, context: Any, dataset: Any) -> tf.data.Dataset:
        stages.extend(upstream.reading(reader).stages)
        return tf.data.Dataset.range(0)

    data = copy.deepcopy(data)
    # A reader wants a file that is there; nothing is read of it.
    data.override({"input_path": os.devnull})
    with upstream.reading_with(read):
        task.build_inputs(data)
    return stages[-1]


def _of_a_class(content: tf.Tensor, data: Any) -> dict[str, Any]:
    """What the official classification decoder returns of a record with this picture."""
    return {
        data.image_field_key: content,
        data.label_field_key: tf.constant(0, tf.int64),
    }


def _of_no_objects(content: tf.Tensor, data: Any) -> dict[str, Any]:
    """What the official decoder of boxes and masks returns of a picture with nothing in it."""
    image = tf.io.decode_image(content, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    size = tf.shape(image, tf.int64)
    return {
        "source_id": tf.constant("0"),
        "image": image,
        "height": size[0],
        "width": size[1],
        "groundtruth_classes": tf.zeros([0], tf.int64),
        "groundtruth_is_crowd": tf.zeros([0], tf.bool),
        "groundtruth_area": tf.zeros([0]),
        "groundtruth_boxes": tf.zeros([0, 4]),
        "groundtruth_instance_masks": tf.zeros([0, size[0], size[1]]),
    }


def _of_one_class(content: tf.Tensor, data: Any) -> dict[str, Any]:
    """What the official segmentation decoder returns of a picture whose pixels are all of class 0."""
    size = tf.shape(
        tf.io.decode_image(content, channels=3, expand_animations=False),
        tf.int64,
    )
    pixels = tf.zeros([size[0], size[1], 1], tf.uint8)
    return {
        data.image_feature.feature_name: content,
        "image/height": size[0],
        "image/width": size[1],
        "image/segmentation/class/encoded": tf.io.encode_png(pixels),
    }


DECODED = {
    "classification": _of_a_class,
    "detection": _of_no_objects,
    "segmentation": _of_one_class,
}
