"""Finds what still draws at random from a state, in traced graphs and every function they call.

`randomness` replaces the operations that TensorFlow's Python functions create while they are traced. What was made in
another way is out of its reach: raw operations, functions traced earlier, SavedModels, Python code. It is found here.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import tensorflow as tf

from pipelines.training import upstream
from pipelines.training.upstream import NodeDef

# What draws, though its definition does not say so by a state and a seed together.
DRAWING = {
    "NonDeterministicInts",
    "RngReadAndSkip",
    "RiscRandomUniform",
    "StatefulRandomBinomial",
    "StatefulStandardNormal",
    "StatefulStandardNormalV2",
    "StatefulTruncatedNormal",
    "StatefulUniform",
    "StatefulUniformFullInt",
    "StatefulUniformInt",
    "FractionalAvgPool",
    "FractionalMaxPool",
    "SamplingDataset",
    "ShuffleDataset",
    "ShuffleAndRepeatDataset",
    "Skipgram",
    "NegTrain",
}
PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}  # may draw, unseen
# Ends the names of operations that only hand seeds to another, which is found itself.
SEEDS = "SeedGenerator"
SHOWN = 5


@dataclass(frozen=True)
class Draw:
    """An operation that draws from a state: type, name, and the function that holds it, None for the graph itself."""

    kind: str
    name: str
    function: str | None = None

    def __str__(self) -> str:
        holder = f" in function {self.function}" if self.function else ""
        return f"{self.kind} ({self.name}{holder})"


def in_graph(graph: tf.Graph) -> list[Draw]:
    """Every operation of a graph, and of all functions that it calls, that draws from a state."""
    return [draw for draw, _ in _drawing(graph)]


def in_dataset(dataset: tf.data.Dataset) -> list[Draw]:
    """Every operation in the functions of a pipeline that gives other values in each run, whatever the run's seed.

    Operations that were seeded are left out: a pipeline that runs them in one order repeats what they give.
    """
    draws = []
    for graph in upstream.dataset_graphs(dataset):
        for draw, node in _drawing(graph):
            if not _seeded(node):
                draws.append(draw)
    return draws


def refusal(draws: Iterable[Draw], where: str) -> str | None:
    """Says what was found and what to do; None where nothing was."""
    shown = [str(draw) for draw in draws]
    if not shown:
        return None
    listed = ", ".join(shown[:SHOWN])
    if len(shown) > SHOWN:
        listed += f" and {len(shown) - SHOWN} more"
    return (
        f"determinism: {where} draws with operations that cannot be repeated exactly: "
        f"{listed}; use tf.random's functions as they are traced (no raw operation, earlier trace, "
        f"SavedModel or Python code), or set determinism=off"
    )


@functools.cache
def draws_from_state(kind: str) -> bool:
    """Whether operations of this type draw from a state: defined by TensorFlow with a state and a seed, or named above."""
    if kind in DRAWING or kind in PYTHON:
        return True
    definition = upstream.operation_definition(kind)
    if definition is None or not definition.is_stateful or kind.endswith(SEEDS):
        return False
    fields = (*definition.attr, *definition.input_arg)
    return any("seed" in field.name for field in fields)


@functools.cache
def _calls(kind: str) -> bool:
    """Whether operations of this type call functions."""
    definition = upstream.operation_definition(kind)
    if definition is None:
        return False
    return any(field.type in ("func", "list(func)") for field in definition.attr)


def _still(node: NodeDef) -> bool:
    """Whether an operation that could draw is set not to."""
    if node.op.startswith("CudnnRNN"):
        return node.attr["dropout"].f == 0
    return node.op.startswith("Fractional") and node.attr["deterministic"].b


def _seeded(node: NodeDef) -> bool:
    """Whether a run's seed fixes what an operation draws; Python code shares its generators with the whole process."""
    if node.op in PYTHON or node.op == "NonDeterministicInts":
        return False
    if "seed2" not in node.attr:
        return True
    seeds = (node.attr["seed"].i, node.attr["seed2"].i)
    return any(seeds)


def _drawing(graph: tf.Graph) -> Iterator[tuple[Draw, NodeDef]]:
    """What draws from a state in a graph, then in the functions that it calls, then in those that they call."""
    called: set[str] = set()
    for operation in graph.get_operations():
        node = operation.node_def
        if draws_from_state(operation.type) and not _still(node):
            yield Draw(operation.type, operation.name), node
        if _calls(operation.type):
            called |= set(_functions_of(node))
    waiting = sorted(called)
    while waiting:
        name = waiting.pop()
        for node in upstream.function_definition(name, graph).node_def:
            if draws_from_state(node.op) and not _still(node):
                yield Draw(node.op, node.name, name), node
            new = set(_functions_of(node)) - called
            called |= new
            waiting += sorted(new)


def _functions_of(node: NodeDef) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)
