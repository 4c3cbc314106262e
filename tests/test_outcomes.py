"""Single images: where a figure lies over images like these, and whether two models on the same ones can be told apart."""

import numpy as np
import pytest

from pipelines import outcomes, statistics
from pipelines.outcomes import Classes


def classes(right: np.ndarray) -> Classes:
    """Answers of which these are right."""
    truth = np.arange(len(right)) % 10
    return Classes(truth, np.where(right, truth, truth + 1), np.ones(len(right)))


def models(both: int, first: int, second: int, neither: int) -> tuple[Classes, Classes]:
    """Two models, by the number of images that both judge right, one of them, or neither."""
    counts = [both, first, second, neither]
    return (
        classes(np.repeat([True, True, False, False], counts)),
        classes(np.repeat([True, False, True, False], counts)),
    )


def test_the_interval_over_images_is_that_of_a_share():
    found = classes(np.arange(1000) < 930)
    between = outcomes.over_images(found)
    error = statistics.binomial_error(0.93, 1000)
    assert between.low == pytest.approx(0.93 - 1.96 * error, abs=0.002)
    assert between.high == pytest.approx(0.93 + 1.96 * error, abs=0.002)


@pytest.mark.parametrize(
    ("first", "second", "apart"), [(0, 4, False), (0, 6, True), (20, 24, False), (5, 25, True)]
)
def test_two_models_are_told_apart_by_the_images_that_they_judge_differently(first, second, apart):
    # McNemar's exact test: 0 against 5 has a probability of 0.0625, 0 against 6 one of 0.031.
    weighed = outcomes.paired(*models(300, first, second, 60 - first - second))
    assert weighed.apart == apart
    assert weighed.difference == pytest.approx((second - first) / 360)
    assert weighed.interval.low <= weighed.difference <= weighed.interval.high


def test_pairs_tell_what_two_separate_samples_cannot():
    weighed = outcomes.paired(*models(320, 1, 12, 27))
    apart = statistics.of_images(321 / 360, 332 / 360, 360)
    gap = statistics.gap(statistics.Sample(1, 321 / 360), statistics.Sample(1, 332 / 360), apart)
    assert weighed.apart and not gap.apart


def test_equal_models_are_rarely_told_apart_also_among_many():
    generator = np.random.default_rng(0)
    found = []
    for _ in range(300):
        first, second = generator.random((2, 200)) < 0.9
        found.append(outcomes.paired(classes(first), classes(second), comparisons=3).apart)
    assert np.mean(found) <= 0.05 / 3 + 0.02


def test_other_images_are_not_compared():
    first, second = models(10, 1, 2, 3)
    other = Classes(second.truth[::-1].copy(), second.answer, second.score)
    assert outcomes.paired(first, other) is None
    assert outcomes.paired(first, first).images is None


def test_the_outcomes_of_a_run_are_taken_only_where_they_give_its_figure(tmp_path):
    folder = tmp_path / outcomes.FOLDER
    folder.mkdir()
    found = classes(np.arange(100) < 93)
    (folder / outcomes.LAST).write_bytes(outcomes.packed(9, {"accuracy": found}))
    assert outcomes.of_run(tmp_path, "accuracy", 0.93).figure() == 0.93
    for other in [(tmp_path, "accuracy", 0.92), (tmp_path, "AP", 0.93), (None, "accuracy", 0.93)]:
        assert outcomes.of_run(*other) is None
    headline = {"metric": "accuracy", "value": 0.93}
    assert outcomes.pair_of_runs([(tmp_path, headline)] * 2).difference == 0
    assert outcomes.pair_of_runs([(tmp_path, headline), (tmp_path / "no", headline)]) is None
