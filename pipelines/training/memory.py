"""How much memory a training on the CPU will take, as far as it can be known before it starts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import tensorflow as tf
import tf_keras

from pipelines.system import control_groups
from pipelines.usage import UsageError

COPIES = 3  # weights: gradients, two slots of the optimizer; activations: kept, their gradients, what operations need
GB = 1e9


def estimate(model: Any, batch: int) -> tuple[int, int]:
    """Bytes for weights and for activations that training adds to the process, for batches of `batch` examples.

    A rough figure: shapes that the model does not state, and what is no layer (losses, samplers), count nothing.
    """
    weights = sum(
        variable.shape.num_elements() * variable.dtype.size
        for variable in model.trainable_variables
    )
    sizes = (
        tensor.dtype.size * tensor.shape[1:].num_elements()
        for tensor in _outputs(model)
        if _known(tensor)
    )
    return COPIES * weights, COPIES * batch * sum(sizes)


def _outputs(model: Any) -> list[Any]:
    """What the layers of a model put out, each tensor once."""
    outputs: dict[int, Any] = {}
    for part in (model, *model.submodules):
        if not (isinstance(part, tf_keras.Model) and part._is_graph_network):
            continue
        for node in (node for layer in part.layers for node in layer._inbound_nodes):
            outputs.update({id(tensor): tensor for tensor in tf.nest.flatten(node.outputs)})
    return list(outputs.values())


def _known(tensor: Any) -> bool:
    return bool(tensor.shape[1:].is_fully_defined())


def check(model: Any, batch: int, root: Path = Path("/")) -> str:
    """Says what training will take and what there is.

    Args:
        root: where the files of the kernel lie, as for `available`.

    Raises:
        UsageError: it does not fit, with the batch that would.
    """
    used, free = psutil.Process().memory_info().rss, available(root)
    weights, activations = estimate(model, batch)
    parts = f"process {_gb(used)}, weights and optimizer {_gb(weights)}, batch of {batch} {_gb(activations)}"
    said = f"memory: about {_gb(used + weights + activations)} GB ({parts}); {_gb(used + free)} GB there"
    if weights + activations > free:
        fits = int(max(0, free - weights) / max(1, activations / batch))
        would = f"{fits} would" if fits else "nor would 1"
        field = "task.train_data.global_batch_size"
        raise UsageError(
            f"{said}\n{field}: {batch} does not fit; {would}; or train elsewhere: RUNTIME=gpu"
        )
    return said


def _gb(size: float) -> str:
    return f"{size / GB:.1f}"


def available(root: Path = Path("/")) -> int:
    """Bytes that this process can still take: what the machine has left, or a control group (container) that it is in.

    Args:
        root: holds `proc` and the mount points named in `proc/self/mountinfo`.
    """
    free = next(
        line
        for line in control_groups.lines(root / "proc/meminfo")
        if line.startswith("MemAvailable")
    )
    return min([int(free.split()[1]) * 1024, *(max(0, left) for left in _left_by_groups(root))])


def _left_by_groups(root: Path) -> Iterator[int]:
    """What every control group of this process leaves."""
    for folder in control_groups.folders("memory", root):
        yield from _left(folder)


def _left(folder: Path) -> Iterator[int]:
    """What the limits of one control group leave, where it has any.

    Its use counts cached files, which the kernel drops before anybody goes without: reading and writing data fills a
    group to its limit. Those that some process has mapped, as libraries are, are not counted as droppable.
    """
    use = next((int(text) for text in _texts(folder, "memory.current", "memory.usage_in_bytes")), 0)
    counted = dict(line.split() for line in control_groups.lines(folder / "memory.stat"))
    droppable = max(0, _unmapped(counted)) + int(counted.get("slab_reclaimable", 0))
    for limit in _texts(folder, "memory.max", "memory.high", "memory.limit_in_bytes"):
        if limit != "max":
            yield int(limit) - max(0, use - droppable)


def _unmapped(counted: Mapping[str, str]) -> int:
    """Bytes of cached files that nobody has mapped. Version 1 has other names for a group with those inside it."""
    prefix, mapped = (
        ("total_", "mapped_file") if "total_mapped_file" in counted else ("", "file_mapped")
    )
    cached = sum(
        int(counted.get(f"{prefix}{name}", 0)) for name in ("inactive_file", "active_file")
    )
    return cached - int(counted.get(prefix + mapped, 0))


def _texts(folder: Path, *names: str) -> Iterator[str]:
    """What those of the files hold that exist."""
    yield from (line for name in names for line in control_groups.lines(folder / name))
