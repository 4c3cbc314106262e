"""How much memory a training on the CPU will take, as far as it can be known before it starts."""

from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from pipelines.usage import UsageError

COPIES = 3  # of weights (gradients, two slots of the optimizer) and of activations (kept, their gradients, what operations need)
GB = 1e9


def estimate(model: Any, batch: int) -> tuple[int, int]:
    """Bytes for weights and for activations that training adds to the process, for batches of `batch` examples.

    A rough figure: shapes that the model does not state, and what is no layer (losses, samplers), count nothing.
    """
    weights = sum(variable.shape.num_elements() * variable.dtype.size for variable in model.trainable_variables)
    outputs: dict[int, Any] = {}
    for part in (model, *model.submodules):
        if isinstance(part, tf_keras.Model) and part._is_graph_network:
            for layer in part.layers:
                outputs.update({id(tensor): tensor for node in layer._inbound_nodes for tensor in tf.nest.flatten(node.outputs)})
    sizes = (tensor.dtype.size * tensor.shape[1:].num_elements() for tensor in outputs.values() if tensor.shape[1:].is_fully_defined())
    return COPIES * weights, COPIES * batch * sum(sizes)


def check(model: Any, batch: int) -> str:
    """Says what training will take and what there is.

    Raises:
        UsageError: it does not fit, with the batch that would.
    """
    used, free = _resident(), _available()
    weights, activations = estimate(model, batch)
    said = f"memory: about {(used + weights + activations) / GB:.1f} GB (process {used / GB:.1f}, weights and optimizer {weights / GB:.1f}, batch of {batch} {activations / GB:.1f}); {(used + free) / GB:.1f} GB there"
    if weights + activations > free:
        fits = int(max(0, free - weights) / max(1, activations / batch))
        raise UsageError(f"{said}\ntask.train_data.global_batch_size: {batch} does not fit; {f'{fits} would' if fits else 'nor would 1'}; or train elsewhere: RUNTIME=gpu")
    return said


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _available() -> int:
    """Bytes that this process can still take: the machine's, or what its container leaves."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    limit, now = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and now.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(now.read_text()))
    return free
