"""Calibrates models with loops for int8, which TensorFlow's own calibrator ends the process at.

It reads numbers inside a loop where the runtime keeps none. The loops of Faster and Mask R-CNN sort out boxes, whose
coordinates and scores are not to be rounded: here only the network is watched, and the rest keeps its floats.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.python.optimize import calibrator
from tensorflow.lite.tools import flatbuffer_utils

Range = tuple[float, float]
Pictures = Callable[[], Iterator[Sequence[Any]]]
official: Any = calibrator.Calibrator


@contextlib.contextmanager
def of_loops(parts: Sequence[str]) -> Iterator[None]:
    """Has TensorFlow's converter calibrate models with loops as well.

    Args:
        parts: names of the layers that are a network; of a model without loops, all of it is.
    """

    class Calibrator(official):
        def calibrate(self, dataset_gen: Pictures) -> bytes:
            model = flatbuffer_utils.convert_bytearray_to_object(self._model_content)
            if len(model.subgraphs) == 1:
                return super().calibrate(dataset_gen)
            numbers = values_of(model, parts)
            ranges = watched(self._model_content, numbers, dataset_gen)
            return with_ranges(model, ranges)

    calibrator.Calibrator = Calibrator
    try:
        yield
    finally:
        calibrator.Calibrator = official


def with_ranges(model: Any, ranges: Mapping[int, Range]) -> bytes:
    """A model with the least and the greatest value of some tensors, as TensorFlow's calibrator notes them."""
    for number, (low, high) in ranges.items():
        seen = schema.QuantizationParametersT()
        seen.min, seen.max = [low], [high]
        model.subgraphs[0].tensors[number].quantization = seen
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def values_of(model: Any, parts: Sequence[str]) -> list[int]:
    """The float tensors that go into and come out of the operations of these parts, but for constants."""
    main = model.subgraphs[0]
    beginnings = tuple(f"{part}/" for part in parts)
    numbers: set[int] = set()
    for operation in main.operators:
        if any(_is_of(main.tensors[number], beginnings) for number in operation.outputs):
            numbers.update(operation.inputs, operation.outputs)
    values = []
    for number in sorted(numbers):
        # -1 stands for an input that is left out.
        if number >= 0 and _is_a_value(model, main.tensors[number]):
            values.append(number)
    return values


def _is_of(tensor: Any, beginnings: tuple[str, ...]) -> bool:
    """Whether a tensor is of an operation, or of one of those merged into it, whose name begins so."""
    return any(name.startswith(beginnings) for name in tensor.name.decode().split(";"))


def _is_a_value(model: Any, tensor: Any) -> bool:
    is_constant = model.buffers[tensor.buffer].data is not None
    return tensor.type == schema.TensorType.FLOAT32 and not is_constant


def watched(content: bytes, numbers: Sequence[int], pictures: Pictures) -> dict[int, Range]:
    """The least and the greatest value of these tensors over the pictures."""
    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        # Delegates keep what they compute to themselves.
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (shown,) = interpreter.get_input_details()
    ranges: dict[int, Range] = {}
    for (image,) in pictures():
        interpreter.set_tensor(shown["index"], np.asarray(image, np.float32))
        interpreter.invoke()
        for number in numbers:
            values = interpreter.get_tensor(number)
            if values.size:
                low, high = ranges.get(number, (np.inf, -np.inf))
                ranges[number] = (
                    min(low, float(values.min())),
                    max(high, float(values.max())),
                )
    return ranges


def operations(content: bytes) -> tuple[int, dict[str, int]]:
    """How many operations a TFLite model has, loops included, and how many of each name compute in floats.

    What makes integers of floats at its inputs, and floats of integers at its outputs, is not counted.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(content)
    count, names = 0, Counter[str]()
    for part in model.subgraphs:
        for operation in part.operators:
            name = flatbuffer_utils.opcode_to_name(model, operation.opcodeIndex)
            if name in ("QUANTIZE", "DEQUANTIZE"):
                continue
            count += 1
            if _is_in_floats(part, operation):
                names[name] += 1
    return count, dict(sorted(names.items()))


def _is_in_floats(part: Any, operation: Any) -> bool:
    for number in (*operation.inputs, *operation.outputs):
        # -1 stands for an input that is left out.
        if number >= 0 and part.tensors[number].type == schema.TensorType.FLOAT32:
            return True
    return False
