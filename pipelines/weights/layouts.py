"""How the tensors of a file are named and laid out in Model Garden's networks, one function for each kind of file.

A tensor's name here is its path in a model as checkpoints spell it: `backbone/layer_with_weights-0/kernel`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

Tensors = Mapping[str, np.ndarray]
Numbers = Sequence[float]

# What Model Garden's parsers have made of a pixel: (x - mean) / deviation, of ImageNet.
PARSER_MEAN = (123.675, 116.28, 103.53)
PARSER_DEVIATION = (58.395, 57.12, 57.375)

NORMS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
# The convolutions of a block, each with the norm that follows it.
PARTS = {
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}
BLOCKS = 16  # of EfficientNet b0
BOTTLENECKS = 17  # of MobileNetV2
LAYER = "backbone/layer_with_weights-{}"
HEAD = "model/layer_with_weights-1"


class Converted(dict[str, np.ndarray]):
    """Tensors by their path in Model Garden's model, put in from PyTorch's."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self._tensors = tensors

    def convolution(self, name: str, path: str) -> None:
        """Adds a kernel. PyTorch has (out, in, rows, columns), TensorFlow the channels last."""
        kernel = self._tensors[f"{name}.weight"]
        is_depthwise = path.endswith("depthwise_kernel")
        axes = (2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0)
        self[path] = kernel.transpose(axes)

    def norm(self, name: str, path: str) -> None:
        """Adds what a batch norm has."""
        for theirs, ours in NORMS.items():
            tensor = self._tensors[f"{name}.{theirs}"]
            self[f"{path}/{ours}"] = tensor

    def block(self, number: int) -> None:
        """Adds a block of EfficientNet."""
        name = f"_blocks.{number}"
        layer = LAYER.format(number + 2)
        for part, (convolution, norm) in enumerate(PARTS.items()):
            if f"{name}.{convolution}.weight" not in self._tensors:
                continue  # The first block widens nothing.
            path = kernel_path(layer, part)
            self.convolution(f"{name}.{convolution}", path)
            self.norm(f"{name}.{norm}", f"{layer}/_norm{part}")

    def fold(self, mean: Numbers, deviation: Numbers, kernel_name: str, mean_name: str) -> None:
        """Makes the first layer take what Model Garden's parsers give, in place of (x - mean) / deviation.

        With x = p * PARSER_DEVIATION + PARSER_MEAN, the factor goes into the kernel, and what is constant into the mean
        that the following norm subtracts. At the border, where zeros are padded, the two differ a little.
        """
        kernel = self[kernel_name].astype(np.float64)
        constant = np.subtract(PARSER_MEAN, mean)
        constant = np.divide(constant, deviation)
        shift = np.einsum("hwio,i->o", kernel, constant)
        factor = np.divide(PARSER_DEVIATION, deviation)
        kernel *= factor[:, None]
        self[kernel_name] = kernel.astype(np.float32)
        shifted = self[mean_name] - shift
        self[mean_name] = shifted.astype(np.float32)


def kernel_path(layer: str, part: int) -> str:
    """Path of a kernel in a block, whose middle convolution is depthwise."""
    word = "depthwise_kernel" if part == 1 else "kernel"
    return f"{layer}/_conv{part}/{word}"


def efficientnet_lite(tensors: Tensors, mean: Numbers, deviation: Numbers) -> dict:
    """EfficientNet-Lite0 of PyTorch as Model Garden's `efficientnet` b0 without squeeze and excitation.

    Args:
        mean: what the network wants subtracted from a pixel from 0 to 255, for red, green and blue.
        deviation: what it wants that divided by.
    """
    converted = Converted(tensors)
    converted.convolution("_conv_stem", f"{LAYER.format(0)}/kernel")
    converted.norm("_bn0", LAYER.format(1))
    for number in range(BLOCKS):
        converted.block(number)
    last = BLOCKS + 2
    converted.convolution("_conv_head", f"{LAYER.format(last)}/kernel")
    converted.norm("_bn1", LAYER.format(last + 1))
    converted[f"{HEAD}/kernel"] = tensors["_fc.weight"].T
    converted[f"{HEAD}/bias"] = tensors["_fc.bias"]
    kernel = f"{LAYER.format(0)}/kernel"
    converted.fold(mean, deviation, kernel, f"{LAYER.format(1)}/moving_mean")
    return converted


def mobilenet_v2(tensors: Tensors, mean: Numbers, deviation: Numbers) -> dict:
    """MobileNetV2 of PyTorch as Model Garden's `mobilenet` MobileNetV2, layer by layer in order.

    PyTorch pads a convolution of stride 2 on both sides, TensorFlow on one: the features are exact where the image has
    32k + 1 pixels, a good start elsewhere.
    """
    converted = Converted(tensors)
    names = list(_convolutions(tensors))
    places = list(_mobilenet_parts())
    if len(names) != len(places):
        raise ValueError(
            f"it has {len(names)} convolutions with a norm, and {len(places)} are there"
        )
    for (kernel, norm), (layer, part) in zip(names, places, strict=True):
        converted.convolution(kernel, kernel_path(layer, part))
        converted.norm(norm, f"{layer}/_norm{part}")
    first = LAYER.format(0)
    converted.fold(mean, deviation, f"{first}/_conv0/kernel", f"{first}/_norm0/moving_mean")
    return converted


def _convolutions(tensors: Tensors) -> Iterator[tuple[str, str]]:
    """Name of each convolution in order, and of the norm that follows it."""
    convolution = ""
    for name, tensor in tensors.items():
        if tensor.ndim == 4:
            convolution = name.removesuffix(".weight")
        elif name.endswith(".running_var"):
            yield convolution, name.removesuffix(".running_var")


def _mobilenet_parts() -> Iterator[tuple[str, int]]:
    """The layer of each convolution in order, and which of its parts it is."""
    yield LAYER.format(0), 0
    for number in range(BOTTLENECKS):
        widening = () if number == 0 else (0,)
        for part in (*widening, 1, 2):
            yield LAYER.format(number + 1), part
    yield LAYER.format(BOTTLENECKS + 1), 0


LAYOUTS: dict[str, Callable[[Tensors, Numbers, Numbers], dict]] = {
    "efficientnet_lite": efficientnet_lite,
    "mobilenet_v2": mobilenet_v2,
}
