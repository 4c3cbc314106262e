"""Holds an exported file against its checkpoint on the run's validation records, and writes down what came of it."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import statistics
from pipelines.outcomes import Outcomes
from pipelines.shipping import conversion, parity
from pipelines.shipping.parity import Forward, Watched
from pipelines.system import durable

DRAWS = 300  # of images, for the interval of a change

# The official evaluation of whatever answers: its figures, and what was found in every image.
Figures = Callable[[Forward], tuple[Mapping[str, float], Mapping[str, Outcomes]]]


@dataclass
class Evaluated:
    """An evaluation: its figures, what was answered of every image, and how right it was."""

    figures: Mapping[str, float]
    answers: list[Any]
    outcomes: Mapping[str, Outcomes]


def evaluated(kind: str, figures: Figures, forward: Forward) -> Evaluated:
    """Evaluates what answers, image by image."""
    watched = Watched(kind, forward)
    values, outcomes = figures(watched)
    return Evaluated(values, watched.answers, outcomes)


def kept(file: Path, make: Callable[[], Evaluated]) -> Evaluated:
    """What another process of this export has evaluated already, else what `make` does."""
    if file.exists():
        return pickle.loads(file.read_bytes())
    made = make()
    durable.write_whole(file, pickle.dumps(made))
    return made


def verdict_of_bytes(shared: float) -> str:
    """The status of a SavedModel that was asked about pictures' bytes."""
    least = 0.999
    if shared >= least:
        return "ok"
    return f"refused: asked about bytes, {shared:.3%} of the answers are the checkpoint's"


def row(
    form: str,
    kind: str,
    metric: str,
    *,
    reference: Evaluated,
    exported: Evaluated,
) -> dict[str, Any]:
    """What the ship card says of a format that was held against its checkpoint.

    Args:
        metric: the run's headline.
    """
    before = reference.figures[metric]
    after = exported.figures[metric]
    shared = parity.share(parity.agreement(kind, reference.answers, exported.answers))
    limits = parity.limits(form, kind)
    trouble = parity.verdict(limits, before, after, shared)
    return {
        "format": form,
        "status": f"refused: {trouble}" if trouble else "ok",
        "metric": metric,
        "figure": after,
        "checkpoint": before,
        "change": after - before,
        "interval": _interval(metric, reference, exported),
        "agreement": shared,
        "images": len(exported.answers),
    }


def _interval(metric: str, reference: Evaluated, exported: Evaluated) -> list[float] | None:
    """Where the change lies over all images, 95 %; None where the headline is none that is kept image by image."""
    before, after = reference.outcomes.get(metric), exported.outcomes.get(metric)
    if before is None or after is None or before.identity != after.identity:
        return None

    def change(images: np.ndarray) -> float:
        return after.figure(images) - before.figure(images)

    found = statistics.bootstrap(np.arange(before.images), change, draws=DRAWS)
    return [found.low, found.high]


def described(exported: Path, folder: Path) -> dict[str, Any]:
    """Where an exported file lies, how large it is, and its digest."""
    return {
        "file": str(exported.relative_to(folder)),
        "bytes": conversion.size(exported),
        "sha256": conversion.sha256(exported),
    }
