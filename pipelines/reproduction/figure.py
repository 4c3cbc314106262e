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
        return RESCALED if self.changed else UNVERIFIED if self.unverified else None

    def lines(self) -> list[str]:
        """The departures as readable lines."""
        found = [
            *(f"changed: {line}" for line in self.changed),
            *(f"not verified: {line}" for line in self.unverified),
        ]
        more = [f"… {len(found) - 20} more"] if len(found) > 20 else []
        return [
            *found[:20],
            *more,
            *(f"another, and no departure: {line}" for line in self.noted[:20]),
        ]


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
        return [
            f"{'metric':<14} {'reached':>9} {'stated':>9} {'difference':>11} {'tolerance':>10}",
            f"{self.metric:<14} {self.value:>9.4f} {self.stated:>9.4f} {self.value - self.stated:>+11.4f} {self.tolerance:>10.4f}",
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
    changed, unverified, noted = [], [], []
    for line in differences(
        _described(written, written, resolve), _described(cfg, written, resolve)
    ):
        key, _, values = line.partition(": ")
        old, _, new = values.partition(" -> ")
        if key == STARTING_WEIGHTS and "None" not in (old, new):
            unverified.append(f"starting weights: {old} -> {new}, content not verified")
        elif _is_chance(key, old):
            noted.append(line)
        else:
            changed.append(line)
    counts = written.figure.examples if written.figure else {}
    changed += differences(counts, {split: examples.get(split) for split in counts}, "examples")
    return Departures(tuple(changed), tuple(unverified), tuple(noted))


def _described(
    cfg: Config, written: Config, resolve: Callable[[Config], Mapping[str, Any]]
) -> dict[str, Any]:
    # The seed is in several of the parameters; it is weighed once, where it is set.
    params = resolve(replace(cfg, seed=written.seed, determinism=written.determinism))
    nodes = {
        node: json.loads(json.dumps(params[node], default=str))
        for node in ("task", "trainer", "runtime")
    }
    return config.settings({**config.plain(cfg), **nodes}, config.RESULT, config.GUARD)


def _is_chance(key: str, old: str) -> bool:
    """Whether a setting chooses seed or hardware; thread counts do where the recipe leaves them to the machine."""
    node, _, leaf = key.partition(".")
    if node in config.HARDWARE:
        return leaf != config.PRECISION
    return key == "seed" or (node == "threads" and old == "None")


def choice(cfg: Config) -> str:
    """The name by which `experiment=` chose this configuration."""
    names = [name for name in config.options("experiment") if name.rpartition("/")[2] == cfg.name]
    if not names:
        raise UsageError(f"name: there is no experiment file {cfg.name}.yaml")
    return names[0]


def judge(cfg: Config, metrics: dict[str, float], found: Departures) -> Verdict:
    """Weighs the metrics of a finished run against the stated figure: at least that good, less the tolerance.

    Raises:
        UsageError: the run has no such metric.
    """
    figure: Any = stated(cfg)
    if figure.metric not in metrics:
        raise UsageError(
            f"figure.metric: the run has no {figure.metric!r}; it has: {', '.join(sorted(metrics))}"
        )
    value = metrics[figure.metric]
    word = found.word or (REPRODUCED if value >= figure.value - figure.tolerance else MISSED)
    return Verdict(word, figure.metric, value, figure.value, figure.tolerance, figure.source, found)
