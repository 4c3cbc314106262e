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
    here = bench.machine()
    recorded = {"machine": here, "ratios": bench.ratios([SECONDS])}
    row = {"middle": now, "low": now, "high": now}
    (line,) = bench.guard({SECONDS.name: row}, here, recorded)
    assert line.startswith(word)


def test_the_guard_names_another_machine() -> None:
    here = bench.machine()
    recorded = {"machine": {**here, "cores": 999}, "ratios": bench.ratios([SECONDS])}
    first, *_ = bench.guard(bench.ratios([SECONDS]), here, recorded)
    assert first.startswith("recorded on another machine") and "999 cores" in first


def test_recording_replaces_what_was_measured_and_forgets_another_machine(tmp_path: Path) -> None:
    file = tmp_path / "recorded.json"
    here = bench.machine()
    bench.record(bench.ratios([SECONDS]), here, file)
    kept = bench.record(bench.ratios([STEPS]), here, file)
    assert list(kept) == [SECONDS.name, STEPS.name]
    assert bench.read(file)["ratios"] == kept
    kept = bench.record(bench.ratios([STEPS]), {**here, "cores": 999}, file)
    assert list(kept) == [STEPS.name]


def test_equal_ratios_give_the_same_picture(tmp_path: Path) -> None:
    drawn = []
    for name in ("one.svg", "two.svg"):
        picture.draw(bench.ratios([SECONDS, STEPS]), "a machine", tmp_path / name)
        drawn.append((tmp_path / name).read_bytes())
    assert drawn[0] == drawn[1]
    assert b"<svg" in drawn[0]
