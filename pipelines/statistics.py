"""The arithmetic of verdicts: spread over seeds, error of a split, what can and cannot be told apart.

Three kinds of chance are kept apart. Runs that differ in their seed alone spread: `Sample` holds their mean and standard
deviation. A split is itself a draw of images: `binomial_error` and `bootstrap` say how far its figure may lie from that
of all images. And two figures on the same split share its images, so that only the first counts between them.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"
ERROR = 0.05  # probability of a false verdict that each test allows
POWER = 0.8  # probability of a true one that a plan asks for
MOST_RUNS = 1000  # beyond it nobody trains, and no number is given
FIRST_SPREAD = 3  # runs that give a first idea of a spread

Numbers = Any  # a float, or an array of them


@dataclass(frozen=True)
class Interval:
    """Two ends between which a figure lies with a stated probability."""

    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """Runs of one recipe that differ in their seed alone.

    Attributes:
        sd: standard deviation of a single run; of one run alone it comes from elsewhere and is taken as known. None: it
            is not known. 0: all gave the same, which tells of no spread rather than of none.
    """

    count: int
    mean: float
    sd: float | None = None

    @property
    def freedom(self) -> float:
        """Degrees of freedom that `sd` was estimated with."""
        return self.count - 1 if self.count > 1 else math.inf


@dataclass(frozen=True)
class Spread:
    """Standard deviation of a single run, and the degrees of freedom that it was estimated with."""

    sd: float
    freedom: float


def sample(values: Sequence[float]) -> Sample:
    """The sample of these figures, one a seed."""
    mean = float(np.mean(values))
    if len(set(values)) == 1:  # Whose deviation from their mean may be a rounding error.
        return Sample(
            len(values),
            mean,
            0.0 if len(values) > 1 else None,
        )
    return Sample(
        len(values),
        mean,
        float(np.std(values, ddof=1)),
    )


def pooled(samples: Sequence[Sample]) -> Spread | None:
    """The spread of a single run that these samples tell of together; None: they tell of none."""
    freedom = squares = 0.0
    for each in samples:
        if each.sd and math.isinf(each.freedom):
            return Spread(each.sd, math.inf)
        if each.sd is not None and each.count > 1:
            freedom += each.freedom
            squares += each.freedom * each.sd**2
    return Spread(math.sqrt(squares / freedom), freedom) if squares else None


def quantile(probability: float, freedom: Numbers) -> Numbers:
    """Student's t, or the normal distribution's value where the spread is known."""
    # The function takes no infinity; at so many the two agree to six digits.
    from scipy.special import stdtrit  # Takes as long to import as all that a comparison needs.

    return stdtrit(np.minimum(freedom, 1e7), probability)


def interval(values: Sequence[float], level: float = 1 - ERROR) -> Interval | None:
    """Where the mean over all seeds lies, by Student's t; None: the values tell of no spread."""
    runs = sample(values)
    if not runs.sd:
        return None
    half = quantile((1 + level) / 2, runs.freedom) * runs.sd / math.sqrt(runs.count)
    return Interval(runs.mean - half, runs.mean + half)


def binomial_error(share: float, examples: int) -> float:
    """Standard error of a share of images, such as an accuracy, that the choice of the images brings."""
    return math.sqrt(share * (1 - share) / examples)


def of_images(first: float, second: float, examples: int) -> Spread:
    """The error that the choice of the images brings to each of two shares, in place of a spread over seeds."""
    error = binomial_error((first + second) / 2, examples)
    return Spread(error, math.inf)


def bootstrap(
    outcomes: Any,
    statistic: Callable[[Any], float] = np.mean,
    *,
    level: float = 1 - ERROR,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Where a figure of all images lies, by drawing as many of these with replacement, again and again.

    Args:
        outcomes: one row an image. Of two models on the same images, the difference of their outcomes: the pairs stay.
        statistic: gives the figure of such rows.
        seed: of the draws; equal outcomes give equal intervals.
    """
    rows = np.asarray(outcomes)
    generator = np.random.default_rng(seed)
    figures = []
    for _ in range(draws):
        places = generator.integers(len(rows), size=len(rows))
        figures.append(statistic(rows[places]))
    low, high = np.quantile(
        figures,
        [(1 - level) / 2, (1 + level) / 2],
    )
    return Interval(float(low), float(high))


def sign_test(first: int, second: int) -> float:
    """Probability that chance parts so many images, which two models judge differently, as unevenly or more (McNemar, exact)."""
    from scipy.special import bdtr  # As in `quantile`.

    fewer = min(first, second)
    return min(1.0, 2 * float(bdtr(fewer, first + second, 0.5)))


@dataclass(frozen=True)
class Equivalence:
    """Whether runs reproduce a stated figure, by two one-sided tests against a margin.

    Attributes:
        verdict: one of the three words; farther off than the margin is not reproduced, above or below.
        difference: mean of the runs less the stated figure.
        half: half the width of the 90% interval around the difference; None: no spread is known.
        more: about how many more seeds would decide if the mean stays where it is; None: no number would.
        needed: the smallest margin that any number of seeds could show then; None: no spread is known.
    """

    verdict: str
    difference: float
    margin: float
    half: float | None
    spread: Spread | None
    more: int | None = None
    needed: float | None = None
    stated_runs: int = 1

    def sentence(self) -> str:
        """The verdict, and of an inconclusive one what would decide."""
        if self.verdict != INCONCLUSIVE:
            return self.verdict
        if self.spread is None:
            return f"{INCONCLUSIVE}: no spread over seeds is known; about {self.more} more seeds would give a first idea of it"
        if self.more is not None:
            return f"{INCONCLUSIVE}: about {self.more} more seeds"
        runs = "a single run" if self.stated_runs == 1 else f"the mean of {self.stated_runs} runs"
        least = quantile(1 - ERROR, math.inf) / math.sqrt(self.stated_runs)
        needed = f"the margin would have to be {self.needed:.4f}"
        if self.margin <= least * self.spread.sd:
            limit = f"{least:.2f} standard deviations ({least * self.spread.sd:.4f})"
            return f"{INCONCLUSIVE}: no number of seeds can show a margin under {limit} against {runs}; {needed}"
        return f"{INCONCLUSIVE}: no number of seeds up to {MOST_RUNS} would show it at this distance from {runs}; {needed}"


def equivalence(runs: Sample, stated: Sample, margin: float) -> Equivalence:
    """Weighs runs against a stated figure whose margin was declared before them.

    Both tests allow `ERROR`: runs of a recipe that lies `margin` away or farther are called reproduced with at most that
    probability, runs of one that lies within are called not reproduced with at most that. Both sides are runs on one
    split, so that its images are no part of the chance.
    """
    difference = runs.mean - stated.mean
    spread = pooled([runs, stated])
    if spread is None:
        first = max(1, FIRST_SPREAD - runs.count)
        return Equivalence(
            INCONCLUSIVE,
            difference,
            margin,
            None,
            None,
            first,
            None,
            stated.count,
        )
    half = float(
        _half(
            spread,
            runs.count,
            stated.count,
            spread.freedom,
        )
    )
    distance = abs(difference)
    verdict = INCONCLUSIVE
    if distance + half <= margin:
        verdict = REPRODUCED
    elif distance - half > margin:
        verdict = NOT_REPRODUCED
    more = None
    if verdict == INCONCLUSIVE:
        more = _more_runs(
            spread,
            runs.count,
            stated.count,
            abs(margin - distance),
        )
    limit = quantile(1 - ERROR, math.inf) * spread.sd / math.sqrt(stated.count)
    return Equivalence(
        verdict,
        difference,
        margin,
        half,
        spread,
        more,
        float(distance + limit),
        stated.count,
    )


def provable(spread: Spread, runs: int, stated: int) -> float:
    """The smallest margin that so many runs show with a probability of `POWER`, where nothing differs."""
    # Either test may fail, so each has half of what is left to chance.
    quantiles = [quantile(level, spread.freedom) for level in (1 - ERROR, (1 + POWER) / 2)]
    return float(
        sum(quantiles)
        * _error(
            spread.sd,
            runs,
            stated,
        )
    )


def _half(spread: Spread, runs: Numbers, stated: int, freedom: Numbers) -> Numbers:
    """Half the width of an interval that each of two one-sided tests looks at one end of."""
    return quantile(1 - ERROR, freedom) * _error(
        spread.sd,
        runs,
        stated,
    )


def _error(sd: float, runs: Numbers, others: Numbers) -> Numbers:
    """Standard error of the difference of two means."""
    return sd * np.sqrt(1 / np.asarray(runs) + 1 / np.asarray(others))


def _more_runs(spread: Spread, runs: int, stated: int, reach: float) -> int | None:
    """How many runs more make the interval reach no farther than `reach`; None: not even `MOST_RUNS` do."""

    def enough(count: int) -> bool:
        half = _half(
            spread,
            count,
            stated,
            spread.freedom + count - runs,
        )
        return bool(half <= reach)

    count = _fewest(enough, runs + 1)
    return None if count is None else count - runs


def _fewest(enough: Callable[[int], bool], least: int) -> int | None:
    """The smallest number of runs from `least` on that is enough, as every larger one is; None beyond `MOST_RUNS`."""
    counts = range(least, MOST_RUNS + 1)
    position = bisect.bisect_left(counts, True, key=enough)
    return counts[position] if position < len(counts) else None


@dataclass(frozen=True)
class Gap:
    """Two means of runs, and whether they can be told apart.

    Attributes:
        error: what the difference has to exceed.
        runs: about how many runs of each would tell, if the means stay where they are; None: they are equal, or it
            would take more than `MOST_RUNS`.
    """

    difference: float
    error: float
    runs: int | None

    @property
    def apart(self) -> bool:
        """Whether chance alone would hardly give such a difference."""
        return abs(self.difference) > self.error


def gap(first: Sample, second: Sample, spread: Spread, comparisons: int = 1) -> Gap:
    """Weighs the difference of two means of runs.

    Args:
        spread: of a single run of either.
        comparisons: how many such differences are looked at together; each is then allowed its part of `ERROR`.
    """
    level = 1 - ERROR / 2 / comparisons
    difference = first.mean - second.mean
    error = quantile(level, spread.freedom) * _error(
        spread.sd,
        first.count,
        second.count,
    )

    def enough(count: int) -> bool:
        # Estimated again from those runs, unless it was known.
        freedom = max(spread.freedom, 2 * (count - 1))
        error = _error(spread.sd, count, count)
        return bool(quantile(level, freedom) * error < abs(difference))

    return Gap(difference, float(error), _fewest(enough, 2))
