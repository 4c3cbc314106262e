"""The weights of a training: what they hash to, and those that an evaluation puts averages in the place of."""

import hashlib
from collections.abc import Callable
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


def leveller(devices: tf.distribute.Strategy, model: Any) -> Callable[[], None]:
    """Returns what gives all replicas the mean of the statistics that each gathers alone, batch norm's among them.

    A checkpoint holds that mean, and whoever resumes has it on every replica: without it a run left alone would
    evaluate other statistics than one that was resumed. Collective: every worker must call it after the same steps.
    """
    gathered = [variable for variable in model.variables if _is_gathered_alone(variable)]
    if devices.num_replicas_in_sync == 1 or not gathered:
        return lambda: None

    def assign_means() -> None:
        replicas = tf.distribute.get_replica_context()
        values = [tf.identity(variable) for variable in gathered]
        means = replicas.all_reduce(tf.distribute.ReduceOp.MEAN, values)
        for variable, mean in zip(gathered, means, strict=True):
            variable.assign(mean)

    return tf.function(lambda: devices.run(assign_means))


def _is_gathered_alone(variable: tf.Variable) -> bool:
    on_read = variable.synchronization == tf.VariableSynchronization.ON_READ
    return on_read and variable.aggregation == tf.VariableAggregation.MEAN


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
