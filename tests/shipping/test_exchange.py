"""ONNX: the same bytes however tf2onnx has ordered and named a graph, and an operation without a form in it is named."""

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper
from tf2onnx.graph import Node

from pipelines.shipping import exchange
from tests.shipping.test_refusals import SIDE, Probits


def graph(first: str, second: str, turned: bool) -> onnx.GraphProto:
    """(x + a) * relu(x + b), its parts named and ordered as one likes."""
    nodes = [
        helper.make_node("Add", ["x", first], [f"{first}_sum"]),
        helper.make_node("Add", ["x", second], [f"{second}_sum"]),
        helper.make_node("Relu", [f"{second}_sum"], ["positive"]),
        helper.make_node("Mul", [f"{first}_sum", "positive"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32([1, 2]), first),
        numpy_helper.from_array(np.float32([3, 4]), second),
    ]
    if turned:
        nodes[:2] = reversed(nodes[:2])
        constants.reverse()
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    return helper.make_graph(nodes, first, [x], [y], constants)


def test_a_graph_has_the_same_bytes_however_it_was_ordered_and_named():
    once = exchange.in_order(graph("a", "b", turned=False))
    again = exchange.in_order(graph("seven", "eight", turned=True))
    assert once.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    onnx.checker.check_graph(once)
    assert [node.op_type for node in once.node] == ["Add", "Relu", "Add", "Mul"]
    assert once.input[0].name == "x" and once.output[0].name == "y"


def test_sets_of_nodes_are_in_the_order_of_their_first_use():
    # In that of their addresses tf2onnx comes to one graph here and to another there.
    nodes = [Node.__new__(Node) for _ in range(40)]
    with exchange.numbered():
        turned = list(reversed(nodes))
        assert [hash(node) for node in turned] == list(range(40))
        assert list(set(nodes)) == turned
    assert hash(nodes[0]) != 39


class Chosen(tf.Module):
    """Chooses by the last axis, one of a batch as Mask R-CNN does its masks."""

    def serve(self, images):
        places = tf.argmax(images, axis=-1)
        return {"chosen": tf.gather(images, places[:, :, 0], axis=-1, batch_dims=2)}


@pytest.mark.slow
def test_a_batch_is_gathered_by_an_axis_counted_from_the_last():
    model = exchange.converted(Chosen(), [SIDE, SIDE], {"labels": []})
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((1, SIDE, SIDE, 3), np.float32)
    (chosen,) = session.run(["chosen"], {"images": images})
    assert np.array_equal(chosen, Chosen().serve(images)["chosen"].numpy())


@pytest.mark.slow
def test_an_operation_without_a_form_in_onnx_is_named():
    with pytest.raises(Exception, match="Ndtri"):
        exchange.converted(Probits(), [SIDE, SIDE], {"labels": []})
