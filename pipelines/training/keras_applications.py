"""Every family of Keras Applications as a backbone of Model Garden: `task.model.backbone.type: keras`.

The network is Keras' own, with its family's own preprocessing before it: what Model Garden's parsers have made of a pixel
is undone first. Both lie inside the model, so that whatever is exported has them too.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import tensorflow as tf
import tf_keras
from official.modeling import hyperparams
from official.vision.modeling.backbones import factory
from official.vision.ops import preprocess_ops

from pipelines.usage import UsageError, nearest

TYPE = "keras"
LEVELS = range(1, 6)  # of features: a level's stride is 2 to its power


@dataclasses.dataclass
class Keras(hyperparams.Config):
    """A network of `tf_keras.applications` by the name of its function; its weights are named by `init`."""

    model_name: str = "MobileNetV3Small"


def families() -> dict[str, tuple[Callable[..., Any], ModuleType]]:
    """Every network by the name of its function, with its module, which has its preprocessing."""
    networks = {}
    for name, builder in vars(tf_keras.applications).items():
        if name[0].isupper() and callable(builder):
            module = importlib.import_module(builder.__module__)
            networks[name] = (builder, module)
    return networks


def pixels(inputs: tf.Tensor) -> tf.Tensor:
    """Pixels from 0 to 255 of what Model Garden's parsers have normalised."""
    deviation = tf.constant(preprocess_ops.STDDEV_RGB, inputs.dtype)
    mean = tf.constant(preprocess_ops.MEAN_RGB, inputs.dtype)
    return inputs * deviation + mean


class Network(tf_keras.Model):
    """A backbone as Model Garden wants it: outputs by level, and their shapes.

    Attributes:
        network: Keras' own model, to load weights into.
        layer_names: the layer that each level comes from, by its real name.
    """

    def __init__(self, name: str, shape: list[int | None]) -> None:
        builder, module = _family(name)
        inputs = tf_keras.Input(shape=shape)
        prepared = module.preprocess_input(pixels(inputs))
        network = builder(include_top=False, weights=None, input_tensor=prepared)
        features = _features(network, shape)
        outputs = {}
        for level, layer in features.items():
            outputs[level] = layer.output
        super().__init__(inputs=inputs, outputs=outputs)
        self.network = network
        self.layer_names = {level: layer.name for level, layer in features.items()}
        self._output_specs = {level: outputs[level].shape for level in outputs}

    @property
    def output_specs(self) -> Mapping[str, tf.TensorShape]:
        """Shapes by level."""
        return self._output_specs

    def load_file(self, file: str) -> list[str]:
        """Loads one of Keras' own files (…_notop.h5); returns the names of what was loaded.

        Raises:
            UsageError: it is of another network.
        """
        try:
            self.network.load_weights(file)
        # Keras and h5py have many words for another network's file.
        except (ValueError, OSError, KeyError) as error:
            said = " ".join(str(error).split())[:200]
            raise UsageError(
                f"init: {file} does not fit {self.network.name}: {said}; it takes the file without the classifier "
                "(…_notop.h5) of the same network"
            ) from None
        return [variable.name for variable in self.network.weights]


def _family(name: str) -> tuple[Callable[..., Any], ModuleType]:
    networks = families()
    if name not in networks:
        raise UsageError(
            f"task.model.backbone.keras.model_name: Keras has no {name!r}{nearest(name, list(networks))}"
        )
    return networks[name]


def _features(network: Any, shape: list[int | None]) -> dict[str, Any]:
    """The last layer of each stride, by level; only the last of all where the strides are uneven."""
    edge = shape[0]
    layers: dict[str, Any] = {}
    for layer in network.layers:
        output = layer.output
        size: Any = getattr(output, "shape", ())
        if edge is None or len(size) != 4:
            continue
        for level in LEVELS:
            if size[1] == -(-edge // 2**level):
                layers[str(level)] = layer
    last = network.layers[-1]
    if last not in layers.values():
        layers[str(LEVELS[-1])] = last
    return layers


Builder = Callable[[Any, list[int | None]], Any]


def register(kind: str) -> Callable[[Builder], Builder]:
    """Has Model Garden build a backbone from its settings and the shape of a picture; norm and activation are its own."""

    def registered(network: Builder) -> Builder:
        def build(input_specs: Any, backbone_config: Any, **_: Any) -> Any:
            return network(backbone_config.get(), list(input_specs.shape[1:]))

        factory.register_backbone_builder(kind)(build)
        return network

    return registered


@register(TYPE)
def _network(chosen: Keras, shape: list[int | None]) -> Network:
    return Network(chosen.model_name, shape)
