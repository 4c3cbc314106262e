"""Compares runs with the figure that their experiment's file states, published or the house's own.

The figure, its margin and the recipe are those of the file, never the command line's. The verdict is one of five words:

    reproduced      the figure, from the recipe: the mean over seeds lies within the margin, chance aside
    not reproduced  the recipe, but not the figure: it lies farther off, chance aside, above or below
    inconclusive    the recipe, but too few seeds, or a margin that no number of seeds can show
    rescaled        another training than the recipe's: no verdict on the figure
    not verified    the recipe in everything that is written down, from starting weights of which only the path is known
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipelines import config, statistics
from pipelines.config import Config, Figure, differences
from pipelines.statistics import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Equivalence, Sample
from pipelines.usage import UsageError

RESCALED, UNVERIFIED = "rescaled", "not verified"
WORDS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, RESCALED, UNVERIFIED)
# What of a figure has to be declared before the runs that are held against it.
DECLARED = ("metric", "value", "margin", "seeds", "sd")
STARTING_WEIGHTS = (
    "task.init_checkpoint",
    "task.quantization.pretrained_original_checkpoint",
)
MOST_LINES = 20  # that departures take


@dataclass(frozen=True)
class Departures:
    """In what a run departs from the recipe as written.

    Attributes:
        changed: makes it another training.
        unverified: may make it another; nothing here can tell.
        noted: chance and hardware, which the spread over seeds and the determinism class are for.
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
    """Runs beside the stated figure, in the evaluator's unit; the departures say why they may be no reproduction.

    Attributes:
        values: what was reached, by seed.
    """

    word: str
    values: dict[int, float]
    figure: Figure
    weighed: Equivalence
    departures: Departures = Departures()

    def lines(self) -> list[str]:
        """The verdict as readable lines."""
        figure = self.figure
        runs = statistics.sample(list(self.values.values()))
        return [
            f"{'metric':<14} {'reached':>9} {'stated':>9} {'difference':>11} {'margin':>9}",
            f"{figure.metric:<14} {runs.mean:>9.4f} {figure.value:>9.4f} "
            f"{self.weighed.difference:>+11.4f} {figure.margin:>9.4f}",
            *self._chance(),
            f"stated by: {figure.source}{_behind(figure)}",
            *_elsewhere(figure),
            *self.departures.lines(),
            self.sentence(),
        ]

    def sentence(self) -> str:
        """The verdict, and of an inconclusive one what would decide."""
        return self.weighed.sentence() if self.word == INCONCLUSIVE else self.word

    def document(self) -> dict[str, Any]:
        """What is kept of it: the margin too, as it was declared."""
        weighed = asdict(self.weighed)
        if self.weighed.spread and math.isinf(self.weighed.spread.freedom):
            weighed["spread"]["freedom"] = None  # Known, not estimated; JSON has no infinity.
        return {
            "word": self.word,
            "verdict": self.sentence(),
            "values": self.values,
            **weighed,
            "figure": asdict(self.figure),
            "departures": asdict(self.departures),
        }

    def _chance(self) -> list[str]:
        """The figures one by one, and what chance makes of their mean."""
        lines = []
        if len(self.values) > 1:
            by_seed = [f"{value:.4f} (seed {seed})" for seed, value in self.values.items()]
            lines.append(f"runs: {', '.join(by_seed)}")
        weighed = self.weighed
        if weighed.spread and weighed.half is not None:
            low = weighed.difference - weighed.half
            high = weighed.difference + weighed.half
            lines.append(
                f"difference by 90%: {low:+.4f} to {high:+.4f}; a seed's standard deviation is {weighed.spread.sd:.4f}"
            )
        return lines


def _elsewhere(figure: Figure) -> list[str]:
    """What other sources give for the metric."""
    lines = []
    for source, values in figure.elsewhere.items():
        if figure.metric in values:
            lines.append(f"elsewhere: {values[figure.metric]:.4f} ({source})")
    return lines


def _behind(figure: Figure) -> str:
    """What is known of the runs behind a stated figure."""
    runs = "one run" if figure.seeds == 1 else f"mean of {figure.seeds} runs"
    spread = "spread not known" if figure.sd is None else f"standard deviation {figure.sd:.4f}"
    return f" ({runs}, {spread})"


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
            f"experiment {cfg.name} states no figure (figure:); those that do: make list ARGS=published"
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
    before = _described(
        written,
        written,
        resolve,
    )
    after = _described(
        cfg,
        written,
        resolve,
    )
    changed: list[str] = []
    unverified: list[str] = []
    noted: list[str] = []
    for line in differences(before, after):
        key, _, values = line.partition(": ")
        old, _, new = values.partition(" -> ")
        if key in STARTING_WEIGHTS and "None" not in (old, new):
            unverified.append(f"starting weights: {old} -> {new}, content not verified")
        elif _is_chance(key, old):
            noted.append(line)
        else:
            changed.append(line)
    counts = written.figure.examples if written.figure else {}
    sizes = {split: examples.get(split) for split in counts}
    changed += differences(
        counts,
        sizes,
        "examples",
    )
    return Departures(
        tuple(changed),
        tuple(unverified),
        tuple(noted),
    )


def _described(
    cfg: Config, written: Config, resolve: Callable[[Config], Mapping[str, Any]]
) -> dict[str, Any]:
    # The seed is in several of the parameters; it is weighed once, where it is set.
    alike = replace(
        cfg,
        seed=written.seed,
        determinism=written.determinism,
    )
    params = resolve(alike)
    document = config.plain(cfg)
    for node in config.GARDEN_NODES:
        text = json.dumps(params[node], default=str)
        document[node] = json.loads(text)
    return config.settings(
        document,
        config.RESULT,
        config.GUARD,
    )


def _is_chance(key: str, old: str) -> bool:
    """Whether a setting chooses seed or hardware; thread counts do where the recipe leaves them to the machine."""
    node, _, leaf = key.partition(".")
    if node in config.HARDWARE:
        return leaf != config.PRECISION
    return key == "seed" or (node == "threads" and old == "None")


def choice(cfg: Config) -> str:
    """The name by which `experiment=` chose this configuration."""
    for name in config.options("experiment"):
        if config.recorded_name(name) == cfg.name:
            return name
    raise UsageError(f"name: there is no experiment file {cfg.name}.yaml")


def judge(
    figure: Figure, runs: Mapping[int, Mapping[str, float]], departures: Departures
) -> Verdict:
    """Weighs finished runs against a stated figure, by its margin.

    Args:
        runs: the metrics of each, by seed.

    Raises:
        UsageError: a run has no such metric.
    """
    values = {}
    for seed, metrics in runs.items():
        if figure.metric not in metrics:
            raise UsageError(
                f"figure.metric: the run has no {figure.metric!r}; it has: {', '.join(sorted(metrics))}"
            )
        values[seed] = metrics[figure.metric]
    weighed = statistics.equivalence(
        statistics.sample(list(values.values())), as_sample(figure), figure.margin
    )
    return Verdict(
        departures.word or weighed.verdict,
        values,
        figure,
        weighed,
        departures,
    )


def as_sample(figure: Figure) -> Sample:
    """The runs behind a stated figure."""
    return Sample(
        figure.seeds,
        figure.value,
        figure.sd,
    )


def plan(figure: Figure, seeds: int) -> str | None:
    """What so many seeds can show, said before they are trained; None: the spread is not known."""
    spread = statistics.pooled([as_sample(figure)])
    if spread is None:
        return None
    planned = replace(spread, freedom=spread.freedom + seeds - 1)
    smallest = statistics.provable(
        planned,
        seeds,
        figure.seeds,
    )
    return (
        f"{seeds} seeds show a margin of {smallest:.4f} with a probability of {statistics.POWER:.0%} where nothing differs; "
        f"declared is {figure.margin:.4f}"
    )


def redeclared(figure: Figure, recorded: str) -> tuple[str, ...]:
    """In what a figure differs from that of the configuration that a run recorded: it was declared after the run."""
    before = config.from_yaml(recorded).figure
    now = asdict(figure)
    then = asdict(before) if before else {}
    declared = {name: now[name] for name in DECLARED}
    changes = differences(
        {name: then.get(name) for name in DECLARED},
        declared,
        "figure",
    )
    return tuple(f"{change}, declared after the run" for change in changes)
