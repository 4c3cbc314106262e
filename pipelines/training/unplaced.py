"""Finds what still draws at random from a state, in traced graphs and every function they call.

`randomness` replaces the operations that TensorFlow's Python functions create while they are traced. What was made in
another way is out of its reach: raw operations, functions traced earlier, SavedModels, Python code. It is found here.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import tensorflow as tf
from tensorflow.core.framework import function_pb2, node_def_pb2
from tensorflow.python.eager import context
from tensorflow.python.framework import op_def_registry

# What draws, though its definition does not say so by a state and a seed together.
DRAWING = {
    "NonDeterministicInts", "RngReadAndSkip", "RiscRandomUniform", "StatefulRandomBinomial", "StatefulStandardNormal",
    "StatefulStandardNormalV2", "StatefulTruncatedNormal", "StatefulUniform", "StatefulUniformFullInt",
    "StatefulUniformInt", "FractionalAvgPool", "FractionalMaxPool", "SamplingDataset", "ShuffleDataset", "ShuffleAndRepeatDataset",
    "Skipgram", "NegTrain",
}  # fmt: skip
PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}  # may draw, unseen
SEEDS = (
    "SeedGenerator"  # ends the names of what only hands seeds to an operation that is found itself
)
SHOWN = 5


@dataclass(frozen=True)
class Draw:
    """An operation that draws from a state: type, name, and the function that holds it, None for the graph itself."""

    kind: str
    name: str
    function: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.kind} ({self.name}{f' in function {self.function}' if self.function else ''})"
        )


def in_graph(graph: tf.Graph) -> list[Draw]:
    """Every operation of a graph, and of all functions that it calls, that draws from a state."""
    return [draw for draw, _ in _drawing(graph)]


def in_dataset(dataset: tf.data.Dataset) -> list[Draw]:
    """Every operation in the functions of a pipeline that gives other values in each run, whatever the run's seed.

    Operations that were seeded are left out: a pipeline that runs them in one order repeats what they give.
    """
    found = []
    for stage in dataset._functions():
        found += [draw for draw, node in _drawing(stage.function.graph) if not _seeded(node)]
    for earlier in dataset._inputs():
        found += in_dataset(earlier)
    return found


def refusal(draws: Iterable[Draw], where: str) -> str | None:
    """Says what was found and what to do; None where nothing was."""
    shown = [str(draw) for draw in draws]
    if not shown:
        return None
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return (
        f"determinism: {where} draws with operations that cannot be repeated exactly: "
        f"{', '.join(shown[:SHOWN])}{more}; use tf.random's functions as they are traced (no raw operation, earlier trace, "
        f"SavedModel or Python code), or set determinism=off"
    )


@functools.cache
def draws_from_state(kind: str) -> bool:
    """Whether operations of this type draw from a state: defined by TensorFlow with a state and a seed, or named above."""
    if kind in DRAWING or kind in PYTHON:
        return True
    definition = op_def_registry.get(kind)
    if definition is None or not definition.is_stateful or kind.endswith(SEEDS):
        return False
    return any("seed" in field.name for field in (*definition.attr, *definition.input_arg))


@functools.cache
def _calls(kind: str) -> bool:
    definition = op_def_registry.get(kind)
    return definition is not None and any(
        field.type in ("func", "list(func)") for field in definition.attr
    )


def _still(node: node_def_pb2.NodeDef) -> bool:
    """Whether an operation that could draw is set not to."""
    if node.op.startswith("CudnnRNN"):
        return node.attr["dropout"].f == 0
    return node.op.startswith("Fractional") and node.attr["deterministic"].b


def _seeded(node: node_def_pb2.NodeDef) -> bool:
    """Whether a run's seed fixes what an operation draws; Python code shares its generators with the whole process."""
    if node.op in PYTHON or node.op == "NonDeterministicInts":
        return False
    return "seed2" not in node.attr or bool(node.attr["seed"].i or node.attr["seed2"].i)


def _drawing(graph: tf.Graph) -> Iterator[tuple[Draw, node_def_pb2.NodeDef]]:
    called: set[str] = set()
    for operation in graph.get_operations():
        if draws_from_state(operation.type) and not _still(operation.node_def):
            yield Draw(operation.type, operation.name), operation.node_def
        if _calls(operation.type):
            called |= set(_functions_of(operation.node_def))
    waiting = sorted(called)
    while waiting:
        name = waiting.pop()
        for node in _definition(name, graph).node_def:
            if draws_from_state(node.op) and not _still(node):
                yield Draw(node.op, node.name, name), node
            new = set(_functions_of(node)) - called
            called |= new
            waiting += sorted(new)


def _functions_of(node: node_def_pb2.NodeDef) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)


def _definition(name: str, graph: tf.Graph) -> function_pb2.FunctionDef:
    """A function's definition: the graph holds those that it calls, the process those that these call."""
    held = graph._functions.get(name)
    return held.definition if held is not None else context.context().get_function_def(name)
