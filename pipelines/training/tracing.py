"""AutoGraph rewrites each function that it traces, at some 50 ms apiece; ours need none of it, the official ones they call do."""

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

Function = TypeVar("Function", bound=Callable[..., object])


def plain(function: Function) -> Function:
    """Marks a function that AutoGraph leaves as it is written; what it calls is left too, but for what `converted` gives."""
    function.autograph_info__ = {}  # type: ignore[attr-defined]  # AutoGraph's mark of functions that it is done with
    return function


def converted(function: Function) -> Function:
    """What AutoGraph makes of a function, where the caller is traced; called from a `plain` one."""
    return tf.__internal__.autograph.tf_convert(
        function, tf.__internal__.autograph.control_status_ctx()
    )
