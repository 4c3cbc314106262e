"""The weights of a training: what they hash to, and those that an evaluation puts averages in the place of."""

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.training import upstream


def evaluated(official: Any) -> list[tf.Variable]:
    """Everything that a model's output depends on: its variables, and the moving averages that an evaluation puts in their place."""
    return [*official.model.variables, *upstream.averages(official.optimizer)]


def sha256(variables: list[tf.Variable]) -> str:
    """Digest over the sorted names and the bytes of variables."""
    named = []
    for variable in variables:
        named.append((variable.name, variable.numpy().tobytes()))
    digest = hashlib.sha256()
    for name, value in sorted(named):
        digest.update(name.encode() + b"\0" + value)
    return digest.hexdigest()


def settle_averages(official: Any) -> None:
    """Makes of weights that are averages already, as in a best checkpoint, those that the official evaluation swaps in."""
    averages = upstream.averages(official.optimizer)
    weights = upstream.averaged_weights(official.optimizer)
    for average, weight in zip(averages, weights, strict=True):
        average.assign(weight)


class Averaged:
    """Keeps weights of which a moving average is evaluated: the official swap adds and subtracts, which changes their last bits."""

    def __init__(self, official: Any) -> None:
        self._variables: list[tf.Variable] = []
        if upstream.is_averaging(official.optimizer):
            self._variables += official.model.variables
            self._variables += official.optimizer.variables()
        self._values: list[np.ndarray] = []

    def keep(self) -> None:
        """Notes the values before an evaluation."""
        self._values = [variable.numpy() for variable in self._variables]

    def put_back(self) -> None:
        """Puts the values that were kept back in their place."""
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(value)
