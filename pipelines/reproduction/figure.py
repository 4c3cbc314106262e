"""Compares a run with the figure that its experiment's file states, published or the house's own.

The figure and the recipe are those of the file, never the command line's. The verdict is one of four words:

    reproduced      the figure, from the recipe
    not reproduced  the recipe, but not the figure
    rescaled        another training than the recipe's: no verdict on the figure
    not verified    the recipe in everything that is written down, from starting weights of which only the path is known
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipelines import config
from pipelines.config import Config, Figure, differences
from pipelines.usage import UsageError

REPRODUCED, MISSED, RESCALED, UNVERIFIED = (
    "reproduced",
    "not reproduced",
    "rescaled",
    "not verified",
)
STARTING_WEIGHTS = "task.init_checkpoint"
MOST_LINES = 20  # that departures take


@dataclass(frozen=True)
class Departures:
    """In what a run departs from the recipe as written.

    Attributes:
        changed: makes it another training.
        unverified: may make it another; nothing here can tell.
        noted: chance and hardware, which the figure's tolerance is for.
    """

    changed: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()

    @property
    def word(self) -> str | None:
        """What they make of the verdict, whatever the figure; None: nothing."""
        if self.changed:
            return RESCALED
        return UNVERIFIED if self.unverified else None

    def lines(self) -> list[str]:
        """The departures as readable lines."""
        lines = [f"changed: {line}" for line in self.changed]
        lines += [f"not verified: {line}" for line in self.unverified]
        more = len(lines) - MOST_LINES
        if more > 0:
            lines = [*lines[:MOST_LINES], f"… {more} more"]
        lines += [f"another, and no departure: {line}" for line in self.noted[:MOST_LINES]]
        return lines


@dataclass(frozen=True)
class Verdict:
    """A figure beside the stated one, in the evaluator's unit; the departures say why it may be no reproduction."""

    word: str
    metric: str
    value: float
    stated: float
    tolerance: float
    source: str
    departures: Departures = Departures()

    def lines(self) -> list[str]:
        """The verdict as readable lines."""
        difference = self.value - self.stated
        return [
            f"{'metric':<14} {'reached':>9} {'stated':>9} {'difference':>11} {'tolerance':>10}",
            f"{self.metric:<14} {self.value:>9.4f} {self.stated:>9.4f} "
            f"{difference:>+11.4f} {self.tolerance:>10.4f}",
            f"stated by: {self.source}",
            *self.departures.lines(),
            self.word,
        ]


def recipe(cfg: Config) -> Config:
    """The experiment's file as it is written, without anything of the command line."""
    return config.compose([f"experiment={choice(cfg)}"])


def stated(cfg: Config) -> Figure:
    """Returns the figure that the experiment's file states.

    Raises:
        UsageError: it states none.
    """
    figure = recipe(cfg).figure
    if figure is None:
        raise UsageError(
            f"experiment {cfg.name} states no figure (figure:); those that do: make list, published/…"
        )
    return figure


def departures(
    cfg: Config, examples: dict[str, int], resolve: Callable[[Config], Mapping[str, Any]]
) -> Departures:
    """In what `cfg` and its data depart from the recipe as written: then its figure is no reproduction.

    Args:
        examples: number by split.
        resolve: gives Model Garden's parameters in full. A recipe leaves most of them as they are registered, so that
            neither of two composed configurations may say what they differ in.
    """
    written = recipe(cfg)
    before = _described(written, written, resolve)
    after = _described(cfg, written, resolve)
    changed: list[str] = []
    unverified: list[str] = []
    noted: list[str] = []
    for line in differences(before, after):
        key, _, values = line.partition(": ")
        old, _, new = values.partition(" -> ")
        if key == STARTING_WEIGHTS and "None" not in (old, new):
            unverified.append(f"starting weights: {old} -> {new}, content not verified")
        elif _is_chance(key, old):
            noted.append(line)
        else:
            changed.append(line)
    counts = written.figure.examples if written.figure else {}
    sizes = {split: examples.get(split) for split in counts}
    changed += differences(counts, sizes, "examples")
    return Departures(tuple(changed), tuple(unverified), tuple(noted))


def _described(
    cfg: Config, written: Config, resolve: Callable[[Config], Mapping[str, Any]]
) -> dict[str, Any]:
    # The seed is in several of the parameters; it is weighed once, where it is set.
    alike = replace(cfg, seed=written.seed, determinism=written.determinism)
    params = resolve(alike)
    document = config.plain(cfg)
    for node in config.GARDEN_NODES:
        text = json.dumps(params[node], default=str)
        document[node] = json.loads(text)
    return config.settings(document, config.RESULT, config.GUARD)


def _is_chance(key: str, old: str) -> bool:
    """Whether a setting chooses seed or hardware; thread counts do where the recipe leaves them to the machine."""
    node, _, leaf = key.partition(".")
    if node in config.HARDWARE:
        return leaf != config.PRECISION
    return key == "seed" or (node == "threads" and old == "None")


def choice(cfg: Config) -> str:
    """The name by which `experiment=` chose this configuration."""
    for name in config.options("experiment"):
        if name.rpartition("/")[2] == cfg.name:
            return name
    raise UsageError(f"name: there is no experiment file {cfg.name}.yaml")


def judge(cfg: Config, metrics: dict[str, float], departures: Departures) -> Verdict:
    """Weighs the metrics of a finished run against the stated figure: at least that good, less the tolerance.

    Raises:
        UsageError: the run has no such metric.
    """
    figure = stated(cfg)
    if figure.metric not in metrics:
        raise UsageError(
            f"figure.metric: the run has no {figure.metric!r}; it has: {', '.join(sorted(metrics))}"
        )
    value = metrics[figure.metric]
    reached = value >= figure.value - figure.tolerance
    return Verdict(
        word=departures.word or (REPRODUCED if reached else MISSED),
        metric=figure.metric,
        value=value,
        stated=figure.value,
        tolerance=figure.tolerance,
        source=figure.source,
        departures=departures,
    )
