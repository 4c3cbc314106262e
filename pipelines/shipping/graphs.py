"""What is exported of a model: the official export module, with the preprocessing of the evaluations inside.

docs/shipping.md says where Model Garden's own modules show a model something else than its evaluation did.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from official.vision.serving import export_base
from tf_keras.src.saving.legacy.saved_model import utils

from pipelines.shipping.results import ROUNDING

NO_CLASS = 255  # of pixels that are none of a picture's

Preprocess = Callable[[tf.Tensor], tuple[tf.Tensor, dict[str, Any]]]


class Graph(export_base.ExportModule):
    """The functions of a SavedModel: from pictures' bytes to results, and from prepared pixels to the model's own words."""

    def __init__(
        self,
        params: Any,
        model: Any,
        preprocess: Preprocess,
        *,
        batch_size: int | None,
    ) -> None:
        """Looks at what the preprocessing makes of a picture.

        Args:
            batch_size: pictures at a time; None: any number.
        """
        self._preprocess = preprocess
        traced = tf.function(preprocess).get_concrete_function(tf.TensorSpec([], tf.string))
        self._specs = tf.nest.map_structure(_spec, traced.structured_outputs)
        height, width, _ = self._specs[0].shape
        super().__init__(
            params,
            batch_size=batch_size,
            input_image_size=[height, width],
            model=model,
            input_name="images",
        )

    def save(
        self,
        folder: str,
        signatures: Mapping[str, str],
        assets: Mapping[str, str],
    ) -> None:
        """Writes a SavedModel.

        Args:
            signatures: name of each by the official kind of its input (`image_bytes`, `tflite`).
            assets: paths of files that go with it, by name.
        """
        self._assets = {name: tf.saved_model.Asset(path) for name, path in assets.items()}
        functions = self.get_inference_signatures(signatures)
        # Keras would add a function of each layer, which nobody calls, and fail at those that training gives more inputs.
        # Nobody trains what is exported; the gradients that RevNet brings cannot be saved twice in a process.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        with utils.keras_option_scope(save_traces=False, in_tf_saved_model_scope=False):
            tf.saved_model.save(self, folder, functions, options)

    def serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The model's own words of prepared pixels: logits, raw boxes and classes by level, or detections."""
        if is_one_stage(self.model):
            return _by_level(self.model, images)
        if not hasattr(self.model, "detection_generator"):
            return _logits(self.model(images, training=False))
        return tensors_of(self._detections(images, {}))

    @tf.function
    def inference_from_image_bytes(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Results from JPEGs or PNGs of any size: probabilities, boxes in their own pixels, or their pixels' classes."""
        images, shapes = tf.map_fn(
            self._preprocess,
            inputs,
            fn_output_signature=self._specs,
        )
        if "anchor_boxes" not in shapes:
            logits = _logits(self.model(images, training=False))["logits"]
            if "image_info" in shapes:
                return self._of_pixels(logits, shapes["image_info"], inputs)
            return self._of_a_class(logits)
        outputs = tensors_of(self._detections(images, shapes))
        return in_the_picture(outputs, shapes["image_info"])

    def _of_pixels(
        self, logits: tf.Tensor, infos: tf.Tensor, contents: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        resized = tf.image.resize(logits, self._input_image_size)
        sizes = tf.map_fn(_size, contents, fn_output_signature=tf.TensorSpec([2], tf.int32))
        return {
            "logits": resized,
            "image_info": infos,
            "classes": label_maps(resized, infos, sizes),
        }

    def _of_a_class(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        if self.params.task.validation_data.is_multilabel:
            return {"probabilities": tf.sigmoid(logits)}
        return {"probabilities": tf.nn.softmax(logits)}

    def _detections(self, images: tf.Tensor, shapes: Mapping[str, Any]) -> dict[str, Any]:
        """What a detector finds; without shapes the anchors are those of the whole input, as in an evaluation."""
        if "image_info" in shapes:
            image_shape = shapes["image_info"][:, 1, :]
        else:
            side = tf.constant([self._input_image_size], tf.float32)
            image_shape = tf.tile(side, [tf.shape(images)[0], 1])
        # `call`: Keras refuses to save a layer of several inputs that was called.
        return self.model.call(
            images,
            image_shape=image_shape,
            anchor_boxes=shapes.get("anchor_boxes"),
            training=False,
        )


def in_the_picture(outputs: Mapping[str, Any], infos: tf.Tensor) -> dict[str, Any]:
    """Detections with their boxes in the pictures' own pixels, cut where they reach into what a picture is padded with.

    A box with a mask is not cut: the mask fills it.

    Args:
        infos: as for `label_maps`.
    """
    scale = tf.tile(infos[:, 2:3, :], [1, 1, 2])
    boxes = outputs["detection_boxes"] / scale
    if "detection_masks" not in outputs:
        size = tf.tile(infos[:, :1, :], [1, 1, 2])
        boxes = tf.clip_by_value(boxes, 0.0, size)
    return {**outputs, "detection_boxes": boxes}


def label_maps(logits: tf.Tensor, infos: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """The class of each pixel of the pictures themselves; 255 below and right of those smaller than the largest.

    Args:
        logits: of the padded, scaled pictures.
        infos: what the preprocessing noted of each: the size before it was scaled, that after, the scale.
        sizes: heights and widths of the pictures.
    """
    largest = tf.reduce_max(sizes, axis=0)

    def label_map(picture: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        pixels, info, size = picture
        inside = tf.cast(
            tf.math.ceil(info[0] * info[2] - ROUNDING),
            tf.int32,
        )
        back = tf.image.resize(
            pixels[: inside[0], : inside[1]],
            size,
        )
        surest = tf.cast(tf.argmax(back, axis=-1), tf.uint8)
        rest = largest - size
        return tf.pad(surest, [[0, rest[0]], [0, rest[1]]], constant_values=NO_CLASS)

    return tf.map_fn(
        label_map,
        (logits, infos, sizes),
        fn_output_signature=tf.TensorSpec([None, None], tf.uint8),
    )


def _size(content: tf.Tensor) -> tf.Tensor:
    picture = tf.io.decode_image(content, channels=3, expand_animations=False)
    return tf.shape(picture)[:2]


def _spec(tensor: Any) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def is_one_stage(model: Any) -> bool:
    """Whether a detector says all it has to say before its boxes are sorted out."""
    return hasattr(model, "detection_generator") and hasattr(model, "head")


def _by_level(model: Any, images: tf.Tensor) -> dict[str, tf.Tensor]:
    features = model.backbone(images, training=False)
    if model.decoder:
        features = model.decoder(features, training=False)
    scores, boxes, _ = model.head(features, training=False)
    outputs = {}
    for level in scores:
        outputs[f"classes_{level}"] = scores[level]
        outputs[f"boxes_{level}"] = boxes[level]
    return outputs


def _logits(returned: Any) -> dict[str, tf.Tensor]:
    logits = returned["logits"] if isinstance(returned, Mapping) else returned
    return {"logits": tf.cast(logits, tf.float32)}


def tensors_of(
    outputs: Mapping[str, Any],
) -> dict[str, tf.Tensor]:
    """Those detections that are tensors, and not what lies behind them level by level."""
    wanted = {}
    for name, value in outputs.items():
        is_result = name.startswith("detection_") or name == "num_detections"
        if is_result and tf.is_tensor(value):
            wanted[name] = value
    return wanted


def as_the_model(
    raw: Mapping[str, tf.Tensor],
    model: Any,
    shapes: Mapping[str, Any],
) -> dict[str, Any]:
    """What the model itself would have returned, from what `serve` says.

    Args:
        model: for how it sorts out boxes, not for its weights.
    """
    if "classes_" not in "".join(raw):
        return dict(raw)
    levels = [name.removeprefix("classes_") for name in raw if name.startswith("classes_")]
    ordered = sorted(levels, key=int)
    scores = {level: raw[f"classes_{level}"] for level in ordered}
    boxes = {level: raw[f"boxes_{level}"] for level in ordered}
    found = model.detection_generator(
        boxes,
        scores,
        shapes["anchor_boxes"],
        shapes["image_shape"],
    )
    return {"cls_outputs": scores, "box_outputs": boxes, **found}
