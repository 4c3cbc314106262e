"""Which kernels compute on a CPU: a rule from processor and model, the same every time, never a stopwatch.

The figures behind it are in docs/benchmarks.md; `make tune` measures whether it is right for a machine.
"""

import os
import sys
from collections.abc import Sequence

from pipelines.outside import printable
from pipelines.system import arithmetic
from pipelines.usage import UsageError, nearest

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# Pictures of fewer pixels are small: measured at 32 and 64 a side, where half the cores to an operation is faster, and at 128,
# where it is mixed: all of them win up to 16% in three recipes and lose up to 6% in two.
SMALL_PIXELS = 96 * 96
# Above these TensorFlow turns oneDNN on by itself; at AVX2 it does not, though its convolutions are up to three times as fast.
SLOW_BY_DEFAULT = ("AVX2", "AVX512_CORE")


def prefer_onednn() -> None:
    """Turns oneDNN on where it is faster and TensorFlow would leave it off.

    TensorFlow reads the variable once, at its import; what the user has set stands.
    """
    if "tensorflow" in sys.modules or ONEDNN in os.environ:
        return
    flags = arithmetic.processor()["instructions"] or ()
    if arithmetic.instruction_set(flags, {}) in SLOW_BY_DEFAULT:
        os.environ[ONEDNN] = "1"


def cap(instruction_set: str | None) -> None:
    """Keeps oneDNN to an instruction set, before its first operation; None leaves it all that the processor has.

    It reads the variable once; what the user has set stands.

    Raises:
        UsageError: there is no such instruction set.
    """
    if instruction_set is None:
        return
    name = instruction_set.upper()
    if name not in arithmetic.INSTRUCTION_SETS:
        known = list(arithmetic.INSTRUCTION_SETS)
        hint = nearest(name, known)
        raise UsageError(
            f"cpu_isa: there is no {printable(instruction_set)}{hint}; all: {', '.join(known)}"
        )
    if not any(os.environ.get(variable) for variable in arithmetic.CAPS):
        os.environ[arithmetic.CAPS[0]] = name


def onednn_in_words() -> str:
    """Whether convolutions and products are oneDNN's, as far as the variable says it."""
    words = {None: "as TensorFlow chooses", "0": "off"}
    return words.get(os.environ.get(ONEDNN), "on")


def intra_op(cores: int, input_size: Sequence[int | None]) -> int:
    """Threads for one operation.

    Work on small pictures is too little to divide well. A layer's two gradients are independent, so
    that two operations side by side, each on half the cores, use the machine better.

    Args:
        cores: of this process; as many operations may run at a time.
        input_size: the model's, height and width before the channels; empty or with None where it takes any.
    """
    height, width = input_size[-3:-1] if len(input_size) >= 3 else (None, None)
    if height and width and height * width < SMALL_PIXELS:
        return max(1, cores // 2)
    return cores
