"""A published checkpoint measured on the recipe's validation split: its figure beside the stated one.

Nothing is trained, so no seed has a say: the checkpoint has one figure on these images. Where it comes from the stated one,
the two differ by rounding and by how pictures were decoded. The interval says how far other images would move it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines import outcomes
from pipelines.config import Figure
from pipelines.outcomes import Outcomes
from pipelines.outside import printable
from pipelines.reproduction.figure import RESCALED, Departures
from pipelines.statistics import NOT_REPRODUCED, REPRODUCED, Interval
from pipelines.usage import UsageError

# What a measurement depends on, and what of it is about the training alone.
MEASURING = ("dataset", "examples", "figure", "garden", "imports", "task", "runtime")
TRAINING = (
    "examples.train:",
    "task.train_data.",
    "task.losses.",
    "task.init_checkpoint",
    "task.freeze_backbone:",
)
BATCH = "task.validation_data.global_batch_size:"  # As large as the device takes.
MOST_NAMES = 10  # that are listed of what was saved and not wanted


@dataclass(frozen=True)
class Measured:
    """What came of an evaluation.

    Attributes:
        sha256: of the checkpoint's files.
        loaded: number of variables.
        unused: names of what is saved and the model has not.
        averaged: whether moving averages were taken in place of the weights.
        outcomes: of the single images, by the figure that they give.
    """

    checkpoint: str
    sha256: str
    loaded: int
    unused: Sequence[str]
    averaged: bool
    metrics: Mapping[str, float]
    outcomes: Mapping[str, Outcomes]


@dataclass(frozen=True)
class Verdict:
    """A measured figure beside the stated one.

    Attributes:
        interval: of the figure over images like these; None: their outcomes are not known.
    """

    word: str
    figure: Figure
    measured: Measured
    departures: tuple[str, ...] = ()
    interval: Interval | None = None
    images: int = 0

    def lines(self) -> list[str]:
        """The verdict as readable lines."""
        figure = self.figure
        value = self.measured.metrics[figure.metric]
        difference = value - figure.value
        return [
            *_origin(self.measured),
            f"{'metric':<14} {'measured':>9} {'stated':>9} {'difference':>11} {'margin':>9}",
            f"{figure.metric:<14} {value:>9.4f} {figure.value:>9.4f} {difference:>+11.4f} {figure.margin:>9.4f}",
            self._images(),
            *self._others(),
            f"stated by: {figure.source}",
            *[f"changed: {line}" for line in self.departures],
            self.word,
        ]

    def document(self) -> dict[str, Any]:
        """What is kept of it."""
        return {
            "word": self.word,
            "checkpoint": printable(self.measured.checkpoint, 300),
            "sha256": self.measured.sha256,
            "unused": list(self.measured.unused),
            "averaged": self.measured.averaged,
            "metrics": dict(self.measured.metrics),
            "images": self.images,
            "interval": asdict(self.interval) if self.interval else None,
            "figure": asdict(self.figure),
            "departures": list(self.departures),
        }

    def _images(self) -> str:
        between = self.interval
        if between is None:
            return f"{self.images} images; what others would give is not drawn for {self.figure.metric}"
        return (
            f"over images like these {self.images}: {between.low:.4f} to {between.high:.4f} (95%); "
            "on these very ones nothing is left to chance"
        )

    def _others(self) -> list[str]:
        lines = []
        for name, stated in self.figure.others.items():
            if name in self.measured.metrics:
                value = self.measured.metrics[name]
                lines.append(f"{name:<14} {value:>9.4f} {stated:>9.4f} {value - stated:>+11.4f}")
        return lines


def judge(figure: Figure, measured: Measured, departures: Departures, expected: int) -> Verdict:
    """Holds what was measured against the stated figure, by its margin.

    Args:
        departures: of the configuration and data from the recipe; those that only a training feels do not count.
        expected: images of the split.

    Raises:
        UsageError: the evaluation gives no such metric.
    """
    if figure.metric not in measured.metrics:
        raise UsageError(
            f"figure.metric: the evaluation has no {figure.metric!r}; it has: {', '.join(sorted(measured.metrics))}"
        )
    changed = [line for line in departures.changed if counts(line)]
    found = measured.outcomes.get(figure.metric)
    if found and found.images != expected:
        changed.append(f"images: {expected} -> {found.images}")
    apart = abs(measured.metrics[figure.metric] - figure.value)
    word = REPRODUCED if apart <= figure.margin else NOT_REPRODUCED
    return Verdict(
        RESCALED if changed else word,
        figure,
        measured,
        tuple(changed),
        outcomes.over_images(found) if found else None,
        found.images if found else expected,
    )


def counts(departure: str) -> bool:
    """Whether a departure from the recipe is one for a measurement, which trains nothing."""
    node, *_ = departure.replace(":", ".").split(".")
    return node in MEASURING and not departure.startswith((*TRAINING, BATCH))


def _origin(measured: Measured) -> list[str]:
    """What was loaded, and what was not."""
    averaged = ", moving averages in their place" if measured.averaged else ""
    shown = printable(measured.checkpoint, 300)
    lines = [f"checkpoint: {shown} ({measured.sha256[:12]}), {measured.loaded} variables{averaged}"]
    if measured.unused:
        lines.append(f"saved and wanted by nothing: {len(measured.unused)}")
        lines += [f"  {printable(name, 200)}" for name in measured.unused[:MOST_NAMES]]
    return lines
