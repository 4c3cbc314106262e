"""Models in ONNX, the exchange format, by tf2onnx; the packages are the extra `onnx`."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from tf2onnx import convert, utils
from tf2onnx.graph import Node

from pipelines.shipping import metadata
from pipelines.shipping.graphs import Graph


def converted(
    graph: Graph,
    size: Sequence[int],
    document: Mapping[str, Any],
) -> bytes:
    """A model in ONNX that is shown one picture of prepared pixels, with its metadata in its properties.

    Raises:
        Exception: tf2onnx's or ONNX's own: an operation has no form in ONNX.
    """
    pixels = tf.TensorSpec([1, *size, 3], tf.float32, name="images")
    serve = tf.function(graph.serve)
    with numbered():
        model, _ = convert.from_function(
            serve,
            input_signature=[pixels],
            custom_rewriter=[count_axes_from_the_first],
        )
    # tf2onnx leaves an operation that it does not know as it is.
    onnx.checker.check_model(model)
    model.graph.CopyFrom(in_order(model.graph))
    onnx.helper.set_model_props(model, metadata.texts(document))
    return model.SerializeToString(deterministic=True)


def count_axes_from_the_first(graph: Any, nodes: Sequence[Any]) -> Sequence[Any]:
    """Gives gathers of a batch the place of their axis from the first on, as tf2onnx takes it to be.

    Of one counted from the last, as Mask R-CNN's masks are gathered by, it makes a transposition that names an axis twice.
    """
    for node in nodes:
        if node.type != "GatherV2" or not node.get_attr_value("batch_dims", 0):
            continue
        axis = node.inputs[2].get_tensor_value()
        if axis >= 0:
            continue
        place = np.array(axis + graph.get_rank(node.input[0]), np.int32)
        constant = graph.make_const(utils.make_name("axis"), place)
        graph.replace_input(
            node,
            node.input[2],
            constant.output[0],
            2,
        )
    return graph.get_nodes()


@contextlib.contextmanager
def numbered() -> Iterator[None]:
    """Has sets of tf2onnx's nodes in the order of a number, and not of where in memory they lie.

    It simplifies a graph set by set, and in another order it comes to another graph.
    """
    numbers = itertools.count()

    def number(node: Any) -> int:
        if "number" not in vars(node):
            node.number = next(numbers)
        return node.number

    node_class: Any = Node
    official = node_class.__hash__
    node_class.__hash__ = number
    try:
        yield
    finally:
        node_class.__hash__ = official


def in_order(graph: onnx.GraphProto) -> onnx.GraphProto:
    """The same graph, ordered and named by the way from its outputs to its inputs.

    tf2onnx goes through sets of nodes, so that order and names hang on where in memory they lay.
    """
    nodes, constants = _reached(graph)
    names = {"": ""}  # an input that is left out
    for value in (*graph.input, *graph.output):
        names[value.name] = value.name
    for number, constant in enumerate(constants):
        names[constant.name] = f"constant_{number}"
        constant.name = names[constant.name]
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}_{number}"
        for place, output in enumerate(node.output):
            names.setdefault(output, f"{node.name}_{place}")
        _rename(node.input, names)
        _rename(node.output, names)
    return onnx.helper.make_graph(
        nodes,
        "serve",
        graph.input,
        graph.output,
        initializer=constants,
    )


def _rename(values: Any, names: Mapping[str, str]) -> None:
    values[:] = [names[value] for value in values]


def _reached(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes, each after those that it needs, and the constants in the order of their use."""
    makers = {}
    for node in graph.node:
        for output in node.output:
            makers[output] = node
    constants = {constant.name: constant for constant in graph.initializer}
    have = {"", *(value.name for value in graph.input)}
    nodes = []
    used = []
    waiting = [value.name for value in graph.output]
    while waiting:
        value = waiting[-1]
        maker = makers.get(value)
        lacking = _lacking(value, maker, have)
        if lacking:
            waiting += lacking
            continue
        waiting.pop()
        if value in have:
            continue
        have.add(value)
        if maker is None:
            used.append(constants[value])
        else:
            have.update(maker.output)
            nodes.append(maker)
    return nodes, used


def _lacking(value: str, maker: onnx.NodeProto | None, have: set[str]) -> list[str]:
    """What must be there before a value."""
    if maker is None or value in have:
        return []
    return [name for name in maker.input if name not in have]
