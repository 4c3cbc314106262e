"""How much memory a training on the CPU will take, as far as it can be known before it starts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from pipelines.system import control_groups
from pipelines.training import upstream
from pipelines.usage import UsageError

COPIES = 3  # weights: gradients, two slots of the optimizer; activations: kept, their gradients, what operations need
GB = 1e9
CACHED = ("inactive_file", "active_file")


def estimate(model: Any, batch: int) -> tuple[int, int]:
    """Bytes for weights and for activations that training adds to the process, for batches of `batch` examples.

    A rough figure: shapes that the model does not state, and what is no layer (losses, samplers), count nothing.
    """
    variables = model.trainable_variables
    weights = 0
    for variable in variables:
        weights += variable.shape.num_elements() * variable.dtype.size
    outputs = {id(tensor): tensor for tensor in upstream.layer_outputs(model)}  # Each once.
    activations = sum(_bytes_of_an_example(tensor) for tensor in outputs.values())
    return COPIES * weights, COPIES * batch * activations


def _bytes_of_an_example(tensor: Any) -> int:
    shape = tensor.shape[1:]
    return tensor.dtype.size * shape.num_elements() if shape.is_fully_defined() else 0


def check(model: Any, batch: int, root: Path = Path("/")) -> str:
    """Says what training will take and what there is.

    Args:
        root: where the files of the kernel lie, as for `available`.

    Raises:
        UsageError: it does not fit, with the batch that would.
    """
    used = psutil.Process().memory_info().rss
    free = available(root)
    weights, activations = estimate(model, batch)
    needed = weights + activations
    parts = (
        f"process {_gb(used)}",
        f"weights and optimizer {_gb(weights)}",
        f"batch of {batch} {_gb(activations)}",
    )
    total = _gb(used + needed)
    limit = _gb(used + free)
    said = f"memory: about {total} GB ({', '.join(parts)}); {limit} GB there"
    if needed > free:
        each = max(1, activations / batch)
        fits = int(max(0, free - weights) / each)
        would = f"{fits} would" if fits else "not even 1 does"
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
    limits = [max(0, size) for size in _left_by_groups(root)]
    for line in control_groups.lines(root / "proc/meminfo"):
        name, size, *_ = line.split()
        if name == "MemAvailable:":
            limits.append(int(size) * 1024)
    return min(limits)


def _left_by_groups(root: Path) -> Iterator[int]:
    """What every control group of this process leaves."""
    for folder in control_groups.folders("memory", root):
        yield from _left(folder)


def _left(folder: Path) -> Iterator[int]:
    """What the limits of one control group leave, where it has any.

    Its use counts cached files, which the kernel drops before anybody goes without: reading and writing data fills a
    group to its limit. Those that some process has mapped, as libraries are, are not counted as droppable.
    """
    used = [int(text) for text in _texts(folder, "memory.current", "memory.usage_in_bytes")]
    lines = control_groups.lines(folder / "memory.stat")
    counted = dict(line.split() for line in lines)
    droppable = max(0, _unmapped(counted))
    droppable += int(counted.get("slab_reclaimable", 0))
    kept = max(0, used[0] - droppable) if used else 0
    for limit in _texts(folder, "memory.max", "memory.high", "memory.limit_in_bytes"):
        if limit != "max":
            yield int(limit) - kept


def _unmapped(counted: Mapping[str, str]) -> int:
    """Bytes of cached files that nobody has mapped. Version 1 has other names for a group with those inside it."""
    is_nested = "total_mapped_file" in counted
    prefix = "total_" if is_nested else ""
    mapped = "total_mapped_file" if is_nested else "file_mapped"
    cached = 0
    for name in CACHED:
        cached += int(counted.get(f"{prefix}{name}", 0))
    return cached - int(counted.get(mapped, 0))


def _texts(folder: Path, *names: str) -> Iterator[str]:
    """What those of the files hold that exist."""
    for name in names:
        yield from control_groups.lines(folder / name)
