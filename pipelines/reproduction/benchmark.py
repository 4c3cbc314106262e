"""Compares a run with the figure that its experiment states, published or the house's own."""

from dataclasses import dataclass
from typing import Any

from pipelines import config
from pipelines.config import Benchmark, Config, differences
from pipelines.usage import UsageError

REPRODUCED, MISSED, RESCALED = "reproduced", "not reproduced", "rescaled"
PATHS = ("init_checkpoint", "input_path", "annotation_file")


@dataclass(frozen=True)
class Verdict:
    """A figure beside the stated one, in the evaluator's unit; `changes` say why it is no reproduction but rescaled."""

    word: str
    metric: str
    value: float
    stated: float
    tolerance: float
    source: str
    changes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The verdict as readable lines."""
        return [
            f"{'metric':<14} {'reached':>9} {'stated':>9} {'difference':>11} {'tolerance':>10}",
            f"{self.metric:<14} {self.value:>9.4f} {self.stated:>9.4f} {self.value - self.stated:>+11.4f} {self.tolerance:>10.4f}",
            f"stated by: {self.source}",
            *(f"changed: {change}" for change in self.changes[:20]),
            *([f"… {len(self.changes) - 20} more"] if len(self.changes) > 20 else []),
            self.word,
        ]


def stated(cfg: Config) -> Benchmark:
    """Returns the figure that the experiment states.

    Raises:
        UsageError: it states none.
    """
    if cfg.benchmark is None:
        raise UsageError(f"experiment {cfg.name} states no figure (benchmark:); those that do: make list, published/…")
    return cfg.benchmark


def changes(cfg: Config, examples: dict[str, int]) -> list[str]:
    """In what `cfg` and its data depart from the recipe as written: then its figure is no reproduction."""
    recipe = config.compose([f"experiment={choice(cfg)}"])
    found = []
    for key in ("task", "trainer", "epochs", "garden"):
        found += differences(getattr(recipe, key), getattr(cfg, key), key)
    found += differences(*(one.runtime.get("mixed_precision_dtype") for one in (recipe, cfg)), "runtime.mixed_precision_dtype")
    found = [line for line in found if line.partition(":")[0].rpartition(".")[2] not in PATHS]
    if cfg.dataset and recipe.dataset and cfg.dataset.name != recipe.dataset.name:
        found.append(f"dataset: {recipe.dataset.name} -> {cfg.dataset.name}")
    return found + differences(stated(cfg).examples, {key: examples.get(key) for key in stated(cfg).examples}, "examples")


def choice(cfg: Config) -> str:
    """The name by which `experiment=` chose this configuration."""
    names = [name for name in config.options("experiment") if name.rpartition("/")[2] == cfg.name]
    if not names:
        raise UsageError(f"name: there is no experiment file {cfg.name}.yaml")
    return names[0]


def judge(cfg: Config, metrics: dict[str, float], departures: list[str]) -> Verdict:
    """Weighs the metrics of a finished run against the stated figure: at least that good, less the tolerance.

    Raises:
        UsageError: the run has no such metric.
    """
    figure: Any = stated(cfg)
    if figure.metric not in metrics:
        raise UsageError(f"benchmark.metric: the run has no {figure.metric!r}; it has: {', '.join(sorted(metrics))}")
    value = metrics[figure.metric]
    word = RESCALED if departures else REPRODUCED if value >= figure.value - figure.tolerance else MISSED
    return Verdict(word, figure.metric, value, figure.value, figure.tolerance, figure.source, tuple(departures))
