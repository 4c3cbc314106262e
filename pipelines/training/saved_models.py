"""A SavedModel as TF Hub publishes them as a backbone of Model Garden: `task.model.backbone.type: saved_model`.

It has to be reusable: called as a function, with its variables, so that it can be trained. Given a feature vector it serves
classification; feature maps, one for each stride, detection and segmentation too.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras
from official.modeling import hyperparams

from pipelines.training import upstream
from pipelines.training.keras_applications import LEVELS, pixels, register
from pipelines.usage import UsageError

TYPE = "saved_model"
EVERYTHING = "return_endpoints"  # Hub's word for: the feature maps beside the vector


@dataclasses.dataclass
class SavedModel(hyperparams.Config):
    """Which SavedModel, and what it wants of a pixel: from black, 0 in a picture, to white, 255."""

    saved_model_path: str = ""  # `init` says it.
    black: float = 0.0
    white: float = 1.0


class Levels(dict[str, Any]):
    """Something by level; names those that there are where another is asked for."""

    def __missing__(self, level: str) -> Any:
        there = ", ".join(sorted(self)) or "none"
        raise UsageError(
            f"init: the SavedModel has no feature map of level {level}, its levels are {there}; choose another, or set the "
            "levels of decoder and head (task.model)"
        )


class Network(tf_keras.Model):
    """A SavedModel as a backbone: outputs by level, and their shapes.

    Attributes:
        layer_names: the output that each level comes from.
        is_vector: whether it has no feature maps.
    """

    def __init__(self, chosen: SavedModel, shape: list[int | None]) -> None:
        if None in shape:
            raise UsageError(
                "task.model.input_size: say the size of the pictures; a SavedModel's feature maps are told apart by it"
            )
        layer, probed = _layer(chosen, shape)
        names = _levels(probed, shape)
        inputs = tf_keras.Input(shape=shape)
        answered = layer(scaled(inputs, chosen))
        if not isinstance(answered, Mapping):
            answered = {"": answered}
        outputs = {level: _map(answered[name]) for level, name in names.items()}
        super().__init__(inputs=inputs, outputs=outputs)
        self.layer_names = names
        self.is_vector = all(len(probed[name]) == 1 for name in names.values())
        shapes = {level: output.shape for level, output in outputs.items()}
        self._output_specs = shapes

    @property
    def output_specs(self) -> Levels:
        """Shapes by level, for a decoder.

        Raises:
            UsageError: there is nothing to decode.
        """
        if self.is_vector:
            raise UsageError(
                "init: the SavedModel gives a feature vector and no feature maps: it serves classification alone; for this "
                "task choose one that answers to return_endpoints, or a card: trellis weights"
            )
        return Levels(self._output_specs)


def scaled(inputs: tf.Tensor, chosen: SavedModel) -> tf.Tensor:
    """What Model Garden's parsers have normalised, in the range that the SavedModel wants."""
    span = chosen.white - chosen.black
    return pixels(inputs) * (span / 255.0) + chosen.black


def _layer(chosen: SavedModel, shape: list[int | None]) -> tuple[Any, dict[str, tf.TensorShape]]:
    """The SavedModel as a layer, and the shape of each thing it answers."""
    network = _loaded(chosen.saved_model_path)
    # Here, since every training imports this room: it takes a second, warns, and few need it.
    import tensorflow_hub as hub

    arguments = {}
    if EVERYTHING in upstream.arguments_of(network.__call__):
        arguments[EVERYTHING] = True
    try:
        answered = hub.KerasLayer(network, arguments=arguments)(tf.zeros([1, *shape]))
    # TensorFlow has many words for an input that a function was not traced for.
    except (ValueError, TypeError, tf.errors.OpError) as error:
        said = " ".join(str(error).split())[:300]
        raise UsageError(
            f"init: the SavedModel {chosen.saved_model_path} takes no pictures of {shape} (task.model.input_size): {said}"
        ) from None
    if isinstance(answered, Mapping):
        sizes = {name: output.shape[1:] for name, output in answered.items()}
        probed = dict(sizes)
    else:
        sizes = answered.shape[1:]
        probed = {"": sizes}
    layer = hub.KerasLayer(network, trainable=True, arguments=arguments, output_shape=sizes)
    return layer, probed


def _loaded(folder: str) -> Any:
    try:
        network = tf.saved_model.load(folder)
    except (OSError, ValueError, tf.errors.OpError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"init: the SavedModel {folder} cannot be loaded: {said}") from None
    variables = getattr(network, "trainable_variables", ())
    if not callable(network) or not variables:
        raise UsageError(
            f"init: the SavedModel {folder} cannot be trained: it has no function to call, or no variables (TF1's form of "
            "TF Hub, or signatures alone); take one in the form of reusable SavedModels"
        )
    return network


def _levels(probed: Mapping[str, tf.TensorShape], shape: list[int | None]) -> dict[str, str]:
    """The output of each level: of a stride the last by name; a vector alone is the last level."""
    names: dict[str, str] = {}
    vectors = []
    for name in sorted(probed, key=_natural):
        size = probed[name]
        if len(size) == 1:
            vectors.append(name)
        for level in LEVELS:
            if len(size) == 3 and size[0] == -(-(shape[0] or 0) // 2**level):
                names[str(level)] = name
    if not names and vectors:
        names[str(LEVELS[-1])] = vectors[0]
    if not names:
        shapes = ", ".join(f"{name or 'it'}: {size}" for name, size in probed.items())
        raise UsageError(f"init: the SavedModel gives neither a vector nor feature maps: {shapes}")
    return names


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts block_2 before block_10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _map(output: tf.Tensor) -> tf.Tensor:
    """A feature map; of a vector one of a single cell."""
    if len(output.shape) == 2:
        return output[:, None, None, :]
    return output


@register(TYPE)
def _network(chosen: SavedModel, shape: list[int | None]) -> Network:
    return Network(chosen, shape)
