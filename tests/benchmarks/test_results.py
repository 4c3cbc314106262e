"""What benchmarks say of what they have measured; nothing here measures time."""

from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import picture, results
from benchmarks.results import Measured

SECONDS = Measured("boxes, wall time", "s", ours=[2.0, 4.0, 3.0], theirs=[6.0, 6.0, 6.0])
STEPS = Measured("resnet, steps", "steps/s", ours=[30.0], theirs=[20.0], less=False)


def test_a_ratio_is_of_medians_with_the_least_and_most_of_any_pair() -> None:
    stand = results.ratio(SECONDS)
    assert (stand.middle, stand.low, stand.high) == (2.0, 1.5, 3.0)
    assert results.ratio(STEPS).middle == 1.5


def test_measurements_survive_their_file(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    results.write(file, [SECONDS, STEPS])
    assert results.read(file) == [SECONDS, STEPS]


@pytest.mark.parametrize(
    ("now", "word"),
    [
        (1.0, "LOWER"),
        (9.0, "higher"),
        (2.0, "every ratio is within"),
        (1.4, "every ratio is within"),
    ],
)
def test_the_guard_speaks_where_spreads_lie_apart(now: float, word: str) -> None:
    row = {"middle": now, "low": now, "high": now}
    (line,) = bench.guard({SECONDS.name: row}, bench.ratios([SECONDS]))
    assert line.startswith(word)


def test_recording_replaces_what_was_measured_and_leaves_another_machine(tmp_path: Path) -> None:
    here = bench.machine()
    other = {**here, "cores": 999}
    bench.record(bench.ratios([SECONDS]), here, tmp_path)
    kept = bench.record(bench.ratios([STEPS]), here, tmp_path)
    assert list(kept) == [SECONDS.name, STEPS.name]
    assert "such a machine" in bench.guard(kept, bench.read(other, tmp_path))[0]
    assert list(bench.record(bench.ratios([STEPS]), other, tmp_path)) == [STEPS.name]
    assert bench.read(here, tmp_path) == kept


def test_equal_ratios_give_the_same_picture(tmp_path: Path) -> None:
    drawn = []
    for name in ("one.svg", "two.svg"):
        picture.draw(bench.ratios([SECONDS, STEPS]), "a machine", tmp_path / name)
        drawn.append((tmp_path / name).read_bytes())
    assert drawn[0] == drawn[1]
    assert b"<svg" in drawn[0]
