"""Which settings of a sweep cannot be told from the best, said with what would tell."""

from pathlib import Path

import numpy as np

from pipelines.outcomes import Classes
from pipelines.sweeps import ranking, ties
from pipelines.sweeps.trial import Trial


def rows_of(figures: dict[str, list[float]], goal: str = "maximize") -> list[ranking.Row]:
    """A ranking of settings by the figures of their seeds."""
    trials = []
    for rate, values in figures.items():
        for seed, value in enumerate(values):
            settings = {"rate": rate, "seed": seed}
            trial = Trial(f"{rate}-{seed}", settings, [], Path(f"{rate}-{seed}"))
            trial.state, trial.value, trial.metric = "finished", value, "accuracy"
            trials.append(trial)
    return ranking.rank(trials, goal)


FOUR = {"a": [0.9833], "b": [0.9722], "c": [0.9722], "d": [0.9667], "e": [0.6]}


def test_four_images_of_360_do_not_make_a_winner():
    rows = rows_of(FOUR)
    tied = ties.find(rows, 360)
    assert tied.positions == (1, 2, 3)
    assert tied.lines() == [
        "= cannot be told from the best: 3 settings, by one seed each on 360 images; about 7 seeds each would tell: "
        "'seed=range(1,8)'"
    ]
    ranks = [line.split()[0] for line in ranking.as_text(rows, tied.positions).splitlines()]
    assert ranks == ["rank", "1", "2=", "3=", "4=", "5"]
    table = [line.split(",") for line in ranking.as_csv(rows, tied.positions).splitlines()]
    assert [cells[7] for cells in table] == ["tied", "", "=", "=", "=", ""]


def test_seeds_tell_what_one_run_of_each_cannot():
    several = {rate: [best - 0.006, best, best + 0.006] for rate, (best, *_) in FOUR.items()}
    tied = ties.find(rows_of(several), 360)
    assert "spread over seeds (standard deviation 0.0060)" in tied.yardstick
    assert tied.positions == (1, 2)
    clear = {"a": [0.99, 0.991, 0.992], "b": [0.95, 0.951, 0.952]}
    assert ties.find(rows_of(clear), 360) == ties.Ties((), tied.yardstick.replace("60", "10"))


def test_of_one_run_each_without_a_known_error_nothing_is_told():
    tied = ties.find(rows_of({"a": [0.6], "b": [0.3]}), None)
    assert tied.positions == (1,) and tied.lines()[0].endswith("give several seeds: seed=1,2,3")


def test_equal_figures_and_perfect_ones_are_ties_and_what_has_not_finished_is_none():
    assert ties.find(rows_of({"a": [1.0], "b": [1.0]}), 360).positions == (1,)
    assert ties.find(rows_of({"a": [1.0], "b": [0.5]}), 360).positions == ()
    assert ties.find(rows_of({"a": [0.2], "b": [0.2001]}, "minimize"), 360).positions == (1,)
    assert ties.find([], 360) == ties.find(rows_of({"a": [1.0]}), 360) == ties.Ties()


def answers(right: int, wrong_first: int = 0, images: int = 360) -> Classes:
    """A model that judges so many images right, after the first ones, which it judges wrong."""
    truth = np.zeros(images, int)
    numbers = np.arange(images)
    is_right = (numbers >= wrong_first) & (numbers < wrong_first + right)
    return Classes(truth, np.where(is_right, 0, 1), truth)


def test_images_tell_what_the_error_of_the_split_cannot():
    rows = rows_of({"a": [350 / 360], "b": [342 / 360], "c": [347 / 360]})
    found = [answers(350), answers(347), answers(342)]
    assert ties.find(rows, 360).positions == (1, 2)
    tied = ties.find(rows, 360, found)
    assert tied.positions == (1,)
    assert tied.lines() == [
        "= cannot be told from the best: 1 setting, by one seed each, image by image on the same 360; "
        "give several seeds: seed=1,2,3"
    ]


def test_images_are_compared_only_where_they_are_kept_of_every_run_and_the_same():
    rows = rows_of({"a": [350 / 360], "b": [342 / 360]})
    split = ties.find(rows, 360)
    others = [None, answers(171, images=180)]
    for other in others:
        assert ties.find(rows, 360, [answers(350), other]) == split


def test_seeds_count_before_images():
    rows = rows_of({"a": [0.97, 0.98], "b": [0.96, 0.97]})
    assert ties.find(rows, 360, [answers(350), answers(340)]) == ties.find(rows, 360)
