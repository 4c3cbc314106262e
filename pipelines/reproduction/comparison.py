"""Compares two recorded runs: what went in, and whether the same came out."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipelines import statistics
from pipelines.outcomes import Paired
from pipelines.reproduction import agreement, classes, inputs
from pipelines.reproduction.classes import Classes
from pipelines.statistics import Equivalence, Sample, Spread

IDENTICAL, EQUIVALENT, DIFFERENT = "identical", "equivalent", "different"
INCONCLUSIVE = statistics.INCONCLUSIVE
# What two one-sided tests against the recipe's margin say, in the words for two runs.
WEIGHED = {
    statistics.REPRODUCED: EQUIVALENT,
    statistics.NOT_REPRODUCED: DIFFERENT,
    INCONCLUSIVE: INCONCLUSIVE,
}
NO_SPREAD = (
    "another class, and by how much two seeds of such a training differ is not known; "
    "train others there: make reproduce RUN=… SEEDS=3"
)
TOLERANCE = 0.01  # between headline metrics that are "equivalent", where no stated figure has one
KINDS = inputs.KINDS

Figures = Mapping[str, Mapping[int, float]]  # by name, then step
Parted = tuple[int, str, float, float | None]  # step, name, and the two values


@dataclass(frozen=True)
class Comparison:
    """The verdict on two runs, their determinism classes, and what differs by kind: config, data, code, environment.

    `weighed`: two one-sided tests over seeds gave the verdict, as they do for one recipe in two classes.
    """

    verdict: str
    classes: Classes
    inputs: dict[str, list[str]] = field(default_factory=dict)
    results: list[str] = field(default_factory=list)
    weighed: bool = False

    def lines(self) -> list[str]:
        """The comparison as readable lines: the class first, the verdict last."""
        text = self.classes.lines()
        text += inputs.lines(self.inputs)
        text.append("results:")
        text += [f"  {line}" for line in self.results]
        return [*text, self._last_line()]

    def _last_line(self) -> str:
        if self.verdict == IDENTICAL or self.classes.promised:
            return self.verdict
        return f"{self.verdict}; class: {self.classes.reason()}; {classes.NOT_PROMISED}"


def compare(
    before: Mapping[str, str],
    after: Mapping[str, str],
    figures: tuple[Figures, Figures],
    tolerance: float = TOLERANCE,
    images: int | None = None,
    pair: Paired | None = None,
    more: Sequence[float] = (),
) -> Comparison:
    """Compares two runs by their recorded texts (by file name) and figures (by name, then step).

    identical: equal weights, and every loss and metric equal at every step. equivalent: the headline metrics lie within
    `tolerance`. different: anything else. Of one recipe in two classes, where a spread over seeds is known, two one-sided
    tests hold the second run, with what other seeds gave in its class, against the stated figure, or against the first
    run alone where that is none of the runs behind the figure: equivalent, different or inconclusive; where neither the
    recipe nor several seeds tell of a spread, what is not within `tolerance` is inconclusive.

    Args:
        images: of the validation split, where the headline is a share of them.
        pair: both runs image by image, where that is kept.
        more: headline values that other seeds gave in the class of the second run.
    """
    same_class = classes.between(before, after)
    summaries = [_document(texts, "summary.json") for texts in (before, after)]
    results, steps_equal = _figures(*figures)
    weights_line, weights_equal = _weights(*summaries)
    results += agreement.lines(before, after)
    results.append(weights_line)
    old, new = (summary.get("headline", {}) for summary in summaries)
    value = old.get("value")
    again = new.get("value")
    results.append(f"{old.get('metric')}: {value} -> {again}")
    figure = _figure(before)
    behind = _runs_behind(figure, old)
    spread = statistics.pooled([behind]) if behind else None
    if None not in (value, again) and value != again:
        if pair:
            results.append(_image_by_image(pair))
        if spread or not pair:
            results.append(_chance(value, again, spread, images))
    differing = inputs.differing(before, after)
    by_seeds = False
    same_recipe = not differing["config"] and not differing["data"]
    if weights_equal and steps_equal:
        verdict = IDENTICAL
    elif None in (value, again):
        verdict = DIFFERENT
    elif same_recipe and not same_class.promised:
        margin = figure.get("margin", tolerance)
        weighed = _weighed(behind or Sample(1, value), [again, *more], margin)
        if weighed is None:
            verdict = EQUIVALENT if abs(value - again) <= tolerance else INCONCLUSIVE
            results.append(NO_SPREAD)
        else:
            verdict = WEIGHED[weighed.verdict]
            by_seeds = True
            against = "the recipe's figure" if behind else "the first run"
            results.append(_said_of_weights(weighed, 1 + len(more), against))
    else:
        verdict = EQUIVALENT if abs(value - again) <= tolerance else DIFFERENT
    return Comparison(verdict, same_class, differing, results, by_seeds)


def _weighed(stated: Sample, values: Sequence[float], margin: float) -> Equivalence | None:
    """Weighs runs of another class, of which bits are not promised, as other seeds of the recipe are.

    None: neither what is stated nor these runs tell of a spread.
    """
    weighed = statistics.equivalence(statistics.sample(values), stated, margin)
    return weighed if weighed.spread else None


def _said_of_weights(weighed: Equivalence, runs: int, against: str) -> str:
    word = weighed.sentence().replace(weighed.verdict, WEIGHED[weighed.verdict], 1)
    away = f"{abs(weighed.difference):.4f} ± {weighed.half:.4f} apart"
    seeds = "another seed" if runs == 1 else f"{runs} other seeds"
    line = f"another class, so weighed as {seeds} against {against}: {away}, margin {weighed.margin}: {word}"
    return f"{line}: make reproduce RUN=… SEEDS={runs + weighed.more}" if weighed.more else line


def _runs_behind(figure: Mapping[str, Any], headline: Mapping[str, Any]) -> Sample | None:
    """The runs behind the figure that a recorded recipe states; None where a run may not be counted among them.

    A run far from the figure was trained shorter, or on other data, and how far such runs spread nobody has stated.

    Args:
        headline: what the run reached.
    """
    value = headline.get("value")
    if figure.get("metric") != headline.get("metric") or value is None:
        return None
    stated = Sample(figure.get("seeds", 1), figure.get("value", 0.0), figure.get("sd"))
    is_near = abs(value - stated.mean) <= figure.get("margin", TOLERANCE)
    return stated if is_near else None


def _figure(texts: Mapping[str, str]) -> dict[str, Any]:
    """The figure that a recorded recipe states; empty where it states none."""
    document = yaml.safe_load(texts.get("config.yaml", "{}")) or {}
    return document.get("figure") or {}


def _chance(value: float, again: float, spread: Spread | None, images: int | None) -> str:
    """Whether two headline figures, of a run each, can be told apart, by what, and what would tell."""
    if spread:
        yardstick = f"the recipe's spread over seeds (standard deviation {spread.sd:.4f})"
    elif images:
        yardstick = f"the error of {images} images"
        spread = statistics.of_images(value, again, images)
    else:
        return "one run each: no spread is known that would tell chance from effect"
    gap = statistics.gap(Sample(1, value), Sample(1, again), spread)
    if gap.apart:
        return f"more than chance, by {yardstick}"
    line = f"cannot be told apart, by {yardstick}"
    return f"{line}; about {gap.runs} seeds each would tell" if gap.runs else line


def _image_by_image(pair: Paired) -> str:
    """What the same images say of two runs: their choice is then the only chance that counts, seeds aside."""
    low, high = pair.interval.low, pair.interval.high
    line = f"image by image: {pair.difference:+.4f}, {low:+.4f} to {high:+.4f} over images like these {pair.shown}"
    if pair.apart:
        return f"{line}: more than the choice of images"
    line = f"{line}: cannot be told apart"
    return f"{line}; about {pair.images} images would tell" if pair.images else line


def _document(texts: Mapping[str, str], name: str) -> dict[str, Any]:
    return json.loads(texts.get(name, "{}"))


def _weights(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, bool]:
    """What to say of the weights of two summaries, and whether all of them are known to be equal.

    Records from before `trainable_sha256` hold the digest over trained variables alone, under the name `weights_sha256`.
    """
    narrow = ["trainable_sha256" not in summary for summary in (before, after)]
    old = before.get("weights_sha256")
    new = after.get("weights_sha256")
    if narrow[0] == narrow[1]:
        equal = bool(old) and old == new
        return f"weights: {_change(old, new)}", equal
    change = _change(
        before.get("trainable_sha256", old),
        after.get("trainable_sha256", new),
    )
    which = "first" if narrow[0] else "second"
    lacking = f"statistics and moving averages are not in the record of the {which}"
    return f"trained weights: {change}; {lacking}", False


def _change(before: str | None, after: str | None) -> str:
    if before and before == after:
        return "equal"
    return f"{_short(before)} -> {_short(after)}"


def _figures(before: Figures, after: Figures) -> tuple[list[str], bool]:
    """What to say of the figures, and whether there are any and all are equal."""
    lines = []
    equal = True
    for kind in ("train", "validation"):
        old = _of_kind(before, kind)
        new = _of_kind(after, kind)
        parted = _parting_figures(old, new)
        extra = _series_with_more(new, old)
        count = sum(map(len, old.values()))
        if parted or extra or count == 0:
            equal = False
        lines.append(f"{kind}: {_said_of_figures(parted, extra, count)}")
    return lines, equal


def _of_kind(figures: Figures, kind: str) -> Figures:
    return {name: figures[name] for name in figures if name.startswith(f"{kind}/")}


def _series_with_more(figures: Figures, others: Figures) -> list[str]:
    """Names of the series that have figures at steps where `others` has none."""
    names = []
    for name, series in figures.items():
        if set(series) - set(others.get(name, {})):
            names.append(name)
    return names


def _parting_figures(before: Figures, after: Figures) -> list[Parted]:
    parted = []
    for name, series in before.items():
        for step, value in series.items():
            again = after.get(name, {}).get(step)
            if not _same(value, again):
                parted.append((step, name, value, again))
    return parted


def _said_of_figures(parted: Sequence[Parted], extra: Sequence[str], count: int) -> str:
    if parted:
        step, name, old, new = min(parted)
        first = f"{name} {old} -> {new}"
        return f"{len(parted)} of {count} figures differ, first at step {step}: {first}"
    if extra:
        return f"{len(extra)} series have figures that the first run lacks, such as {extra[0]}"
    return f"all {count} figures equal"


def _same(before: float, after: float | None) -> bool:
    """Whether two figures are equal; NaN equals NaN here."""
    if after is None:
        return False
    if math.isnan(before):
        return math.isnan(after)
    return before == after


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "not recorded"
