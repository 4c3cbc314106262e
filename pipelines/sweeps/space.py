"""The space of a sweep: what varies, over which values, and how one point of it becomes overrides.

    learning_rate: [0.05, 0.1]                        these values
    learning_rate: {low: 0.01, high: 1.0, log: true}  anything between (grid: with `step` or `count`)
    learning_rate: {times: [0.5, 1, 2]}               multiples of what the experiment itself says

A parameter is named by its override key or by a short name, which means the right key for each experiment.
"""

import hashlib
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from pipelines import config
from pipelines.config import Config, Sweep
from pipelines.usage import UsageError, nearest

Point = dict[str, Any]  # parameter: value, or {"times": factor}
METHODS = ("grid", "list", "random", "tpe")
SHORT = {
    "batch_size": "task.train_data.global_batch_size",
    "weight_decay": "task.losses.l2_weight_decay",
}
# What Model Garden's schedules call their rate.
RATES = ("initial_learning_rate", "learning_rate", "values")
DRAWING = ("random", "tpe")  # methods that take values from an interval
RANGE = {"low", "high", "log", "step", "count"}  # keys of an interval in a file
GOALS = ("maximize", "minimize")
MOST = 10_000  # values of one parameter in a grid
DIGITS = 4  # that a drawn value keeps: enough to tell points apart, few enough to read


@dataclass(frozen=True)
class Parameter:
    """One dimension: `choices`, or everything from `low` to `high`."""

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    count: int | None = None
    times: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        numbers = (self.low, self.high, self.step or 0)
        return not self.times and all(isinstance(number, int) for number in numbers)

    def spell(self, value: Any) -> Any:
        """A drawn value as a point holds it: rounded, and marked where it is a multiple."""
        if not self.choices and self.whole:
            value = round(value)
        elif not self.choices:
            rounded = float(f"{value:.{DIGITS}g}")
            value = min(max(rounded, self.low), self.high)
        return {"times": value} if self.times else value

    def every(self) -> list[Any]:
        """All values, for a grid."""
        if self.choices:
            return [self.spell(choice) for choice in self.choices]
        if self.step:
            steps = (self.high - self.low) / self.step
            count = math.floor(steps + 1e-9) + 1
            multiples = [number * self.step for number in range(count)]
            return [self.spell(self.low + multiple) for multiple in multiples]
        if not self.count:
            raise UsageError(
                f"sweep: a grid over the range {self.name} needs `step` or `count`, or another method: random, tpe"
            )
        last = max(1, self.count - 1)
        parts = [number / last for number in range(self.count)]
        return [self.spell(self._between(part)) for part in parts]

    def draw(self, chance: random.Random) -> Any:
        """One value at random."""
        if self.choices:
            return self.spell(chance.choice(self.choices))
        if self.step:
            return chance.choice(self.every())
        if self.whole:
            value = chance.randint(int(self.low), int(self.high))
            return self.spell(value)
        return self.spell(self._between(chance.random()))

    def _between(self, part: float) -> float:
        if self.log:
            first = math.log(self.low)
            length = math.log(self.high) - first
            return math.exp(first + part * length)
        return self.low + part * (self.high - self.low)


@dataclass(frozen=True)
class Space:
    """What a sweep visits: points of `parameters` by `method`, each with every combination of `around`."""

    method: str
    parameters: tuple[Parameter, ...] = ()
    points: tuple[Point, ...] = ()
    around: tuple[Parameter, ...] = ()  # lists on the command line: a grid around every point
    trials: int = 0
    seed: int = 0
    goal: Literal["maximize", "minimize"] = "maximize"

    def digest(self) -> str:
        """Names what suggestions depend on: those made for another space do not count for this one."""
        told = (self.method, self.parameters, self.seed, self.goal)
        text = repr(told)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(
    sweep: Sweep | None, lists: Mapping[str, Sequence[Any]], ranges: Mapping[str, Mapping[str, Any]]
) -> Space:
    """The space of `conf/sweep/<name>.yaml` together with the lists and intervals of the command line.

    What the command line says about a parameter replaces what the file says.

    Raises:
        UsageError: nothing varies, or something is misspelt.
    """
    interval = next(iter(ranges), None)
    if sweep is None and interval:
        raise UsageError(
            f"{interval}: an interval needs a method that draws from it: SWEEP=random or SWEEP=tpe"
        )
    sweep = sweep or Sweep()
    _refuse_misspelt(sweep)
    space = Space(
        sweep.method,
        _parameters(sweep, lists, ranges),
        tuple(dict(point) for point in sweep.points),
        tuple(Parameter(name, tuple(values)) for name, values in lists.items()),
        sweep.trials,
        sweep.seed,
        sweep.goal,  # type: ignore[arg-type]
    )
    if not _varies(space):
        raise UsageError(
            'sweep: nothing varies; choose a space (SWEEP=learning_rate; all: make list) or list values (ARGS="seed=1,2")'
        )
    if interval and space.method not in DRAWING:
        raise UsageError(
            f"{interval}: method {space.method} cannot draw from an interval; random and tpe can"
        )
    return space


def _refuse_misspelt(sweep: Sweep) -> None:
    if sweep.method not in METHODS:
        raise UsageError(
            f"sweep.method: there is no {sweep.method!r}{nearest(sweep.method, METHODS)}"
        )
    if sweep.goal not in GOALS:
        raise UsageError(f"sweep.goal: maximize or minimize, not {sweep.goal!r}")
    if sweep.method in DRAWING and sweep.trials < 1:
        raise UsageError(f"sweep.trials: at least 1, not {sweep.trials}")


def _parameters(
    sweep: Sweep, lists: Mapping[str, Sequence[Any]], ranges: Mapping[str, Mapping[str, Any]]
) -> tuple[Parameter, ...]:
    written = {**sweep.parameters, **ranges}
    parameters = []
    for name, spec in written.items():
        if name not in lists:
            parameters.append(parameter(name, spec))
    return tuple(parameters)


def _varies(space: Space) -> bool:
    if space.method == "list":
        return bool(space.points)
    if space.method == "grid":
        return bool(space.parameters or space.around)
    return bool(space.parameters)


def parameter(name: str, spec: Any) -> Parameter:
    """Reads one parameter as the YAML file spells it."""
    times = isinstance(spec, dict) and set(spec) == {"times"}
    spec = spec["times"] if times else spec
    if isinstance(spec, dict) and "low" in spec and "high" in spec:
        if not _is_range(spec):
            raise UsageError(
                f"sweep: {name}: a range is {{low: 0.01, high: 1.0, log: true, step: …, count: …}}, not {spec}"
            )
        if spec.get("log") and spec["low"] <= 0:
            raise UsageError(
                f"sweep: {name}: a logarithmic range begins above 0, not at {spec['low']}"
            )
        return Parameter(name, times=times, **spec)
    choices = tuple(spec) if isinstance(spec, list | tuple) else (spec,)
    readable = bool(choices) and not isinstance(spec, dict)
    if times and not all(map(_is_number, choices)):
        readable = False
    if not readable:
        raise UsageError(
            f"sweep: {name}: write a list, {{low: …, high: …}} or {{times: …}}, not {spec}"
        )
    return Parameter(name, choices, times=times)


def _is_range(spec: Mapping[Any, Any]) -> bool:
    low: Any = spec.get("low")
    high: Any = spec.get("high")
    if set(spec) - RANGE:
        return False
    if not isinstance(spec.get("log"), bool | None):
        return False
    if not _is_number(low) or not _is_number(high):
        return False
    if low >= high:
        return False
    step: Any = spec.get("step")
    if step is not None:
        if not _is_number(step) or step <= 0:
            return False
        if (high - low) / step > MOST:
            return False
    count: Any = spec.get("count")
    if count is None:
        return True
    return type(count) is int and 0 < count <= MOST


def _is_number(value: Any) -> bool:
    """Whether it is a number to reckon with: not NaN, not endless, not of more digits than a float can take."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def settle(point: Point, cfg: Config) -> tuple[dict[str, Any], list[str]]:
    """The values that a point means for the experiment composed in `cfg`, and the overrides that set them."""
    settings: dict[str, Any] = {}
    overrides: list[str] = []
    for name, value in point.items():
        key = _key(name, cfg)
        if isinstance(value, dict) and set(value) == {"times"}:
            value = _multiply(name, _own(key, cfg), value["times"])
        settings[name] = value
        overrides.append(f"{key}={_spelled(value)}")
    return settings, overrides


def identity(cfg: Config, fingerprint: str) -> str:
    """Names a trial by the settings that its result depends on, down to Model Garden's leaves, and by the content of its data."""
    document = json.loads(_as_json(cfg))
    settings = config.settings(document, config.RESULT)
    settings.pop("dataset")
    text = json.dumps([settings, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _spelled(value: Any) -> str:
    """A plain word bare, as people write it and as the name of a group has to be; anything else as Hydra needs it."""
    if not isinstance(value, str) or value.lower() in ("nan", "inf"):
        return config.override_value(value)
    if re.fullmatch(r"[A-Za-z_][\w./-]*", value) and yaml.safe_load(value) == value:
        return value
    return config.override_value(value)


def _as_json(cfg: Config) -> str:
    return json.dumps(cfg, default=vars)


def _key(name: str, cfg: Config) -> str:
    if name != "learning_rate":
        return SHORT.get(name, name)
    path = "trainer.optimizer_config.learning_rate"
    kind = _own(f"{path}.type", cfg)
    for field in RATES:
        if _own(f"{path}.{kind}.{field}", cfg) is not None:
            return f"{path}.{kind}.{field}"
    raise UsageError(
        f"learning_rate: {cfg.name} does not say its own, so the short name has no meaning; "
        f"name the key: {path}.{kind or '<schedule>'}.{RATES[0]}"
    )


def _own(key: str, cfg: Config) -> Any:
    value: Any = cfg
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return value


def _multiply(name: str, own: Any, factor: float) -> Any:
    if isinstance(own, list) and own:
        return [_multiply(name, item, factor) for item in own]
    if isinstance(own, bool) or not isinstance(own, int | float):
        raise UsageError(
            f"sweep: {name}: `times` multiplies the experiment's own value, which is {own}; give values instead"
        )
    product = own * factor if _is_number(own) and _is_number(factor) else None
    if not _is_number(product):
        raise UsageError(
            f"sweep: {name}: `times` multiplies by a number; {own} times {factor} is none"
        )
    rounded = float(f"{product:.6g}")
    return round(rounded) if isinstance(own, int) else rounded
