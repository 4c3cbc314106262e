"""What a sweep's command line says: overrides that hold throughout, lists of values, and intervals.

Read with Hydra's own parser, so that `seed=1,2`, `choice(a,b)`, `range(1,10)`, `glob(*)`, `interval(0.01,1)` and
`tag(log,interval(0.01,1))` mean here what they mean to Hydra's multirun.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    Glob,
    IntervalSweep,
    Override,
    RangeSweep,
)
from hydra.errors import HydraException

from pipelines import config
from pipelines.sweeps.space import MOST, SHORT
from pipelines.usage import UsageError

# About the sweep, not about its trials.
OURS = (*config.names(config.Config, config.VERB, verb="sweep"), "run_dir")


@dataclass(frozen=True)
class Request:
    """Overrides for every trial (`fixed`) and for the sweep itself (`own`), and what varies."""

    fixed: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    lists: dict[str, list[Any]] = field(default_factory=dict)
    ranges: dict[str, dict[str, Any]] = field(default_factory=dict)


def read(overrides: Sequence[str]) -> Request:
    """Takes a command line apart.

    Raises:
        UsageError: an override that cannot be read, or a sweep's own setting given as a list.
    """
    request = Request()
    for text in overrides:
        override = _parse(text)
        name = text.partition("=")[0]
        several = override is not None and override.is_sweep_override()
        if name.lstrip("+").partition(".")[0] in OURS:
            if several:
                raise UsageError(
                    f"{text}: takes one value, not a list: it holds for the whole sweep"
                )
            request.own.append(text)
        elif override is None or not (several or name in (*SHORT, "learning_rate")):
            request.fixed.append(text)
        else:
            _add(request, name, override)
    return request


def _add(request: Request, name: str, override: Override) -> None:
    interval = override.value()
    if isinstance(interval, IntervalSweep):
        ends = {"low": interval.start, "high": interval.end}
        request.ranges[name] = {**ends, "log": "log" in interval.tags}
    else:
        request.lists[name] = _values(override)


def _parse(text: str) -> Override | None:
    if text.startswith("@") or "=" not in text:
        return None  # A recorded configuration, or something that composition refuses in its own words.
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise UsageError(f"{text}: {' '.join(str(error).split())}") from None


def _values(override: Override) -> list[Any]:
    value = override.value()
    if isinstance(value, Glob):
        return value.filter(list(config.options(override.key_or_group)))
    if not override.is_sweep_override():
        return [value]
    try:
        _refuse_endless(value)
        return [_plain(item) for item in override.sweep_iterator()]
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"{override.input_line}: cannot be listed: {error}") from None


def _refuse_endless(value: Any) -> None:
    if not isinstance(value, RangeSweep):
        return
    first = float(value.start or 0)
    last = float(value.stop or 0)
    if not abs(last - first) <= MOST * abs(value.step):  # Not `>`: NaN is refused too.
        raise ValueError(f"more than {MOST} values, or a step of nothing")


def _plain(value: Any) -> Any:
    """A value without the quotes that Hydra's parser keeps beside it."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value.text if hasattr(value, "text") else value
