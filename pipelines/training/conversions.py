"""Functions as AutoGraph has converted them, kept from one process to the next.

Before TensorFlow traces a function of Model Garden, AutoGraph rewrites its source. That is a function of the text alone, and in
Python takes a quarter of what passes before the first step; what it gave is kept in the environment that it belongs to.
"""

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import tensorflow as tf

from pipelines.system import durable
from pipelines.training import upstream

FOLDER = Path(sys.prefix) / "share" / "trellis" / "conversions"
VERSION = 1
LOOKS_AT_VALUES = ("set_loop_options", "set_element_type")  # Their conversion reads arguments.


@cache
def keep() -> None:
    """Has functions converted once in this environment, from now on in this process."""
    upstream.keep_conversions(_load, _store)


def _load(function: Callable[..., Any], options: Any) -> tuple[Path, list] | None:
    """The file that holds a function as it was converted before, and where its lines come from."""
    key = _key(function, options)
    if key is None:
        return None
    source = FOLDER / f"{key}.py"
    try:
        described = json.loads((FOLDER / f"{key}.json").read_text())
        is_whole = _sha256(source.read_bytes()) == described["sha256"]
        return (source, described["origins"]) if is_whole else None
    except (OSError, ValueError, TypeError, KeyError):
        # Not there, cut off when the machine lost power, or written by somebody else. An error here would have AutoGraph leave
        # the function as it is.
        return None


def _store(function: Callable[..., Any], options: Any, source: str, origins: list) -> None:
    """Keeps a function that was converted; where nothing can be written, the next process converts it again."""
    key = _key(function, options)
    if key is None:
        return
    described = {"sha256": _sha256(source.encode()), "origins": origins}
    with contextlib.suppress(OSError):
        durable.write_whole(FOLDER / f"{key}.py", source)
        durable.write_whole(FOLDER / f"{key}.json", json.dumps(described))


def _key(function: Callable[..., Any], options: Any) -> str | None:
    """All that a conversion depends on: the file, where in it the function stands, names that are taken, options, versions."""
    code: CodeType = function.__code__
    text = _digest(code.co_filename)
    if text is None or any(name in code.co_names for name in LOOKS_AT_VALUES):
        return None
    taken = sorted({*map(str, function.__globals__), *code.co_freevars})
    parts = [
        VERSION,
        tf.__version__,
        sys.version,
        text,
        code.co_filename,
        code.co_firstlineno,
        code.co_qualname,
        code.co_code.hex(),
        list(code.co_positions()),
        code.co_freevars,
        taken,
        upstream.conversion_options(options),
    ]
    return _sha256(json.dumps(parts).encode())[:32]


@cache
def _digest(file: str) -> str | None:
    try:
        return _sha256(Path(file).read_bytes())
    except OSError:  # Typed into an interpreter.
        return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
