"""Verdicts by simulation: how often each is wrong, how often right; and the arithmetic against known tables."""

import math

import numpy as np
import pytest

from pipelines import statistics
from pipelines.statistics import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Sample, Spread

DRAWS = 1000
SD = 0.01
CHANCE = 3 * math.sqrt(0.05 * 0.95 / DRAWS)  # three standard errors of a share of 5%


def shares(apart: float, margin: float, runs: int, stated: int, sd: float | None = None) -> dict:
    """How often each verdict is given on recipes whose means lie `apart`.

    Args:
        sd: what is taken as known of the spread; None: it is estimated from the runs.
    """
    generator = np.random.default_rng(1)
    counts = {REPRODUCED: 0, NOT_REPRODUCED: 0, INCONCLUSIVE: 0}
    ours = generator.normal(0.5 + apart, SD, size=(DRAWS, runs))
    theirs = generator.normal(0.5, SD, size=(DRAWS, stated))
    for figures, published in zip(ours, theirs, strict=True):
        told = statistics.sample(published)
        known = Sample(stated, told.mean, told.sd if stated > 1 else sd)
        weighed = statistics.equivalence(statistics.sample(figures), known, margin)
        counts[weighed.verdict] += 1
    return {verdict: count / DRAWS for verdict, count in counts.items()}


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize(
    ("runs", "stated", "sd"), [(1, 1, SD), (3, 1, SD), (3, 1, None), (5, 1, None), (3, 5, None), (1, 5, None)]
)  # fmt: skip
def test_a_recipe_a_margin_away_is_hardly_ever_called_reproduced(runs, stated, sd, side):
    for margin in (2 * SD, 5 * SD):
        given = shares(side * margin, margin, runs, stated, sd)
        assert given[REPRODUCED] <= 0.05 + CHANCE
        assert given[NOT_REPRODUCED] <= 0.05 + CHANCE


@pytest.mark.parametrize(("runs", "stated", "sd"), [(1, 1, SD), (3, 1, SD), (5, 5, SD), (10, 1, None)])  # fmt: skip
def test_an_equal_recipe_is_called_reproduced_as_often_as_a_plan_asks(runs, stated, sd):
    freedom = math.inf if sd and stated == 1 else runs + stated - 2
    margin = statistics.provable(Spread(SD, freedom), runs, stated)
    assert shares(0, margin, runs, stated, sd)[REPRODUCED] >= 0.8 - CHANCE
    assert shares(0, 0.6 * margin, runs, stated, sd)[REPRODUCED] < 0.8


def test_a_figure_far_too_good_or_too_bad_is_not_reproduced():
    for apart in (-0.2, 0.2):
        assert shares(apart, 0.03, 3, 1)[NOT_REPRODUCED] >= 0.8


@pytest.mark.parametrize(
    ("runs", "smallest"), [(1, 2.326), (3, 1.899), (5, 1.802)]
)  # in standard deviations, for a single published run
def test_the_smallest_margin_that_runs_can_show_is_that_of_the_arithmetic(runs, smallest):
    def verdict(margin: float) -> str:
        ours = Sample(runs, 0.5, 1.0) if runs == 1 else Sample(runs, 0.5)
        return statistics.equivalence(ours, Sample(1, 0.5, 1.0), margin).verdict

    assert verdict(smallest + 0.001) == REPRODUCED
    assert verdict(smallest - 0.002) == INCONCLUSIVE


def test_a_margin_that_no_number_of_seeds_can_show_is_said_with_what_it_would_have_to_be():
    weighed = statistics.equivalence(Sample(5, 0.368), Sample(1, 0.368, 0.003), 0.004)
    assert weighed.sentence() == (
        "inconclusive: no number of seeds can show a margin under 1.64 standard deviations (0.0049) "
        "against a single run; the margin would have to be 0.0049"
    )
    wide = statistics.equivalence(Sample(5, 0.362), Sample(1, 0.368, 0.003), 0.008)
    assert "at this distance from a single run" in wide.sentence() and wide.needed > 0.01


def test_so_many_more_seeds_decide_and_one_fewer_does_not():
    stated = Sample(1, 0.5, 0.01)
    weighed = statistics.equivalence(Sample(1, 0.502), stated, 0.021)
    assert weighed.sentence() == f"inconclusive: about {weighed.more} more seeds"
    enough = 1 + (weighed.more or 0)
    assert statistics.equivalence(Sample(enough, 0.502), stated, 0.021).verdict == REPRODUCED
    fewer = statistics.equivalence(Sample(enough - 1, 0.502), stated, 0.021)
    assert fewer.verdict == INCONCLUSIVE


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5]])
def test_without_a_known_spread_nothing_is_concluded(values):
    weighed = statistics.equivalence(statistics.sample(values), Sample(1, 0.5), 0.1)
    assert weighed.verdict == INCONCLUSIVE
    assert "no spread over seeds is known" in weighed.sentence()


def test_intervals_hold_the_mean_as_often_as_they_say():
    generator = np.random.default_rng(2)
    held = 0
    for values in generator.normal(0.5, SD, size=(DRAWS, 3)):
        within = statistics.interval(values)
        held += within.low <= 0.5 <= within.high
    assert abs(held / DRAWS - 0.95) <= CHANCE


def test_the_error_of_a_split_is_that_of_drawing_its_images():
    right = np.arange(360) < 354
    drawn = statistics.bootstrap(right, draws=1000)
    error = statistics.binomial_error(354 / 360, 360)
    assert error == pytest.approx(0.0067, abs=1e-4)
    assert (drawn.high - drawn.low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    assert statistics.bootstrap(right, draws=1000) == drawn


def test_a_bootstrap_of_differences_keeps_the_pairs():
    generator = np.random.default_rng(3)
    first = generator.random(300) < 0.9
    second = first.copy()
    second[:6] = False  # Worse on six images, equal on all others.
    paired = statistics.bootstrap(first.astype(int) - second, draws=1000)
    assert paired.low > 0
    error = statistics.binomial_error(0.9, 300)
    assert (first.mean() - second.mean()) < 1.96 * math.sqrt(2) * error


def test_equal_settings_are_told_apart_as_rarely_as_allowed_also_among_many():
    generator = np.random.default_rng(4)
    parted = 0
    for values in generator.normal(0.5, SD, size=(DRAWS, 5, 3)):
        samples = [statistics.sample(runs) for runs in values]
        spread = statistics.pooled(samples)
        gaps = [statistics.gap(samples[0], other, spread, 4) for other in samples[1:]]
        parted += any(each.apart for each in gaps)
    assert parted / DRAWS <= 0.05 + CHANCE


def test_the_number_of_runs_that_would_tell_does_tell():
    spread = Spread(0.0074, math.inf)
    tied = statistics.gap(Sample(1, 0.9833), Sample(1, 0.9722), spread)
    assert not tied.apart and tied.runs == 4
    told = statistics.gap(Sample(4, 0.9833), Sample(4, 0.9722), spread)
    fewer = statistics.gap(Sample(3, 0.9833), Sample(3, 0.9722), spread)
    assert told.apart and not fewer.apart
    assert statistics.gap(Sample(1, 0.5), Sample(1, 0.5), spread).runs is None
