"""The verdict on two runs, and what it says of their inputs."""

import json

import pytest

from pipelines.reproduction.comparison import DIFFERENT, EQUIVALENT, IDENTICAL, compare

FIGURES = {"train/loss": {1: 0.5, 2: 0.25}, "validation/AP": {2: 0.4}}


def texts(weights="aa", value=0.4, seed=0, commit="c1", diff="", numpy="2.3.5", fingerprint="f1", run_dir="/one"):
    return {
        "summary.json": json.dumps({"weights_sha256": weights, "headline": {"metric": "AP", "value": value}}),
        "config.yaml": f"seed: {seed}\nrun_dir: {run_dir}\ntask: {{model: {{size: 3}}}}\n",
        "manifest.json": json.dumps({"fingerprint": fingerprint}),
        "environment.json": json.dumps({"git": {"commit": commit}, "packages": [f"numpy=={numpy}"], "python": "3.11"}),
        "diff.patch": diff,
    }


def test_equal_bits_are_identical_wherever_they_were_made():
    found = compare(texts(), texts(run_dir="/other"), (FIGURES, FIGURES))
    assert found.verdict == IDENTICAL
    assert not any(found.inputs.values())
    assert found.lines()[-1] == IDENTICAL


@pytest.mark.parametrize(("value", "verdict"), [(0.405, EQUIVALENT), (0.42, DIFFERENT)])
def test_other_weights_are_equivalent_only_within_the_tolerance(value, verdict):
    assert compare(texts(), texts(weights="bb", value=value), (FIGURES, FIGURES)).verdict == verdict


def test_one_loss_that_differs_is_not_identical_and_its_first_step_is_named():
    other = {**FIGURES, "train/loss": {1: 0.5, 2: 0.26}}
    found = compare(texts(), texts(), (FIGURES, other))
    assert found.verdict == EQUIVALENT
    assert any("first at step 2: train/loss 0.25 -> 0.26" in line for line in found.results)


def test_runs_without_figures_are_not_called_identical():
    assert compare(texts(), texts(), ({}, {})).verdict != IDENTICAL


def test_a_run_without_weights_is_not_called_identical():
    assert compare(texts(weights=None), texts(weights=None), (FIGURES, FIGURES)).verdict != IDENTICAL


@pytest.mark.parametrize(
    ("changed", "kind", "line"),
    [
        ({"seed": 1}, "config", "seed: 0 -> 1"),
        ({"fingerprint": "f2"}, "data", "fingerprint: f1 -> f2"),
        ({"commit": "c2"}, "code", "commit: c1 -> c2"),
        ({"diff": "x"}, "code", "uncommitted changes differ (diff.patch)"),
        ({"numpy": "2.4"}, "environment", "numpy: 2.3.5 -> 2.4"),
    ],
)
def test_every_kind_of_input_that_differs_is_shown(changed, kind, line):
    found = compare(texts(), texts(**changed), (FIGURES, FIGURES))
    assert found.inputs[kind] == [line]
    assert f"  {line}" in found.lines()
