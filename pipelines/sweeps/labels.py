"""How settings are written where people read them."""

from collections.abc import Mapping
from typing import Any


def label(settings: Mapping[str, Any]) -> str:
    """Settings in one line."""
    if not settings:
        return "as composed"
    words = []
    for name, value in settings.items():
        words.append(f"{short(name)}={brief(value)}")
    return " ".join(words)


def short(name: str) -> str:
    """A parameter's name without the path before it; a bare `type` says nothing, so it takes its owner's name."""
    path = name.lstrip("+").removesuffix(".type")
    return path.rpartition(".")[2]


def brief(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).replace(" ", "")
