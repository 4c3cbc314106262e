"""The verdict on two runs, and what it says of their inputs."""

import json

import pytest

from pipelines.reproduction import agreement, classes, inputs
from pipelines.reproduction.comparison import DIFFERENT, EQUIVALENT, IDENTICAL, compare

FIGURES = {"train/loss": {1: 0.5, 2: 0.25}, "validation/AP": {2: 0.4}}
PROCESSOR = {
    "vendor": "V",
    "model": "17",
    "caches": {"L2": {"bytes": 524288}},
    "instruction_set": "AVX512_CORE",
    "instructions": ["avx2", "avx512f"],
}
CLASS = {
    "tensorflow": "2.20.0",
    "threads": {"intra_op": 2},
    "processor": PROCESSOR,
    "variables": {},
}
CAPPED = {
    "processor": {**PROCESSOR, "instruction_set": "SSE41"},
    "variables": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
}


def texts(
    weights="aa",
    value=0.4,
    seed=0,
    commit="c1",
    diff="",
    numpy="2.3.5",
    fingerprint="f1",
    run_dir="/one",
    of_class=CLASS,
    variables=None,
):
    environment = {
        "git": {"commit": commit},
        "packages": [f"numpy=={numpy}"],
        "python": "3.11",
        "variables": variables or {},
        "determinism_class": of_class,
    }
    return {
        "summary.json": json.dumps(
            {"weights_sha256": weights, "headline": {"metric": "AP", "value": value}}
        ),
        "config.yaml": f"seed: {seed}\nrun_dir: {run_dir}\ntask: {{model: {{size: 3}}}}\n",
        "manifest.json": json.dumps({"fingerprint": fingerprint}),
        "environment.json": json.dumps(environment),
        "diff.patch": diff,
    }


def test_equal_bits_are_identical_wherever_they_were_made():
    found = compare(texts(), texts(run_dir="/other"), (FIGURES, FIGURES))
    assert found.verdict == IDENTICAL
    assert not any(found.inputs.values())
    assert found.lines()[-1] == IDENTICAL


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_record_from_before_the_wider_digest_says_so(which):
    newer = texts(weights="all")
    newer["summary.json"] = json.dumps(
        {
            "weights_sha256": "all",
            "trainable_sha256": "aa",
            "headline": {"metric": "AP", "value": 0.4},
        }
    )
    pair = (texts(), newer) if which == "first" else (newer, texts())
    found = compare(*pair, (FIGURES, FIGURES))
    assert found.verdict == EQUIVALENT
    assert (
        f"trained weights: equal; statistics and moving averages are not in the record of the {which}"
        in found.results
    )


@pytest.mark.parametrize(("value", "verdict"), [(0.405, EQUIVALENT), (0.42, DIFFERENT)])
def test_other_weights_are_equivalent_only_within_the_tolerance(value, verdict):
    assert compare(texts(), texts(weights="bb", value=value), (FIGURES, FIGURES)).verdict == verdict


def chance(before: dict, value: float, images: int | None = None) -> str:
    """The line about chance of two runs whose headlines differ."""
    after = texts(weights="bb", value=value)
    return compare(before, after, (FIGURES, FIGURES), images=images).results[-1]


def test_two_figures_of_a_run_each_are_told_apart_only_where_a_spread_is_known():
    assert chance(texts(), 0.42).startswith("one run each: no spread is known")
    shared = chance(texts(value=0.9833), 0.9722, 360)
    assert shared == (
        "cannot be told apart, by the error of 360 images; about 4 seeds each would tell"
    )
    assert chance(texts(value=0.9833), 0.8, 360) == "more than chance, by the error of 360 images"


def test_a_recipe_that_states_its_spread_is_the_yardstick_of_its_runs():
    stated = texts()
    stated["config.yaml"] += "figure: {metric: AP, value: 0.4, margin: 0.02, seeds: 5, sd: 0.01}\n"
    assert chance(stated, 0.42).startswith(
        "cannot be told apart, by the recipe's spread over seeds (standard deviation 0.0100); about "
    )
    assert chance(stated, 0.5).startswith("more than chance")
    other = stated["config.yaml"].replace("metric: AP", "metric: AP50")
    stated["config.yaml"] = other
    assert chance(stated, 0.42).startswith("one run each")


def test_one_loss_that_differs_is_not_identical_and_its_first_step_is_named():
    other = {**FIGURES, "train/loss": {1: 0.5, 2: 0.26}}
    found = compare(texts(), texts(), (FIGURES, other))
    assert found.verdict == EQUIVALENT
    assert any("first at step 2: train/loss 0.25 -> 0.26" in line for line in found.results)


def test_runs_without_figures_are_not_called_identical():
    assert compare(texts(), texts(), ({}, {})).verdict != IDENTICAL


def test_a_run_without_weights_is_not_called_identical():
    assert (
        compare(texts(weights=None), texts(weights=None), (FIGURES, FIGURES)).verdict != IDENTICAL
    )


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


def test_the_names_of_another_machine_are_shown_and_are_no_kind_of_difference():
    before = texts()
    environment = json.loads(before["environment.json"])
    elsewhere = {"cpu": "another", "platform": "Linux-9", "machine": "x86_64"}
    after = {**before, "environment.json": json.dumps({**environment, **elsewhere})}
    assert "cpu: None -> another" in inputs.differing(before, after)["environment"]
    assert inputs.kinds(before, after) == set()
    assert inputs.kinds(before, texts(numpy="2.4", seed=1)) == {"environment", "config"}


def test_a_difference_in_the_class_is_named_first_and_again_with_the_verdict():
    other = texts(
        weights="bb",
        seed=1,
        of_class={**CLASS, **CAPPED},
        variables={"ONEDNN_MAX_CPU_ISA": "SSE41"},
    )
    lines = compare(texts(), other, (FIGURES, FIGURES)).lines()
    reason = (
        "class: instruction set AVX512_CORE -> SSE41 (ONEDNN_MAX_CPU_ISA); bits are not promised"
    )
    assert lines[:3] == [reason, "config:", "  seed: 0 -> 1"]
    assert "environment: the same" in lines
    assert lines[-1] == f"equivalent; {reason}"


@pytest.mark.parametrize(
    ("value", "word"),
    [(0.401, EQUIVALENT), (0.415, "inconclusive"), (0.5, DIFFERENT)],
)
def test_one_recipe_in_two_classes_is_weighed_by_its_spread(value, word):
    recipe = {"metric": "AP", "value": 0.4, "margin": 0.02, "seeds": 1, "sd": 0.005}
    before = texts()
    after = texts(weights="bb", value=value, of_class={**CLASS, **CAPPED})
    for recorded in (before, after):
        recorded["config.yaml"] += f"figure: {json.dumps(recipe)}\n"
    found = compare(before, after, (FIGURES, FIGURES), 0.02)
    assert found.verdict == word
    (line,) = [line for line in found.results if line.startswith("another class")]
    assert f"{abs(value - 0.4):.4f} ± 0.0116 apart, margin 0.02: {word}" in line
    # Of one class another result is another result, however near.
    alike = texts(weights="bb", value=value)
    alike["config.yaml"] = before["config.yaml"]
    assert not any(
        line.startswith("another class")
        for line in compare(before, alike, (FIGURES, FIGURES), 0.02).results
    )


def test_a_run_of_another_class_and_more_seeds_there_are_weighed_against_the_runs_of_the_recipe():
    recipe = {"metric": "AP", "value": 0.4, "margin": 0.02, "seeds": 5, "sd": 0.006}
    before = texts(value=0.39)
    after = texts(weights="bb", value=0.41, of_class={**CLASS, **CAPPED})
    for recorded in (before, after):
        recorded["config.yaml"] += f"figure: {json.dumps(recipe)}\n"

    def weighed(*more: float) -> tuple[str, str]:
        found = compare(before, after, (FIGURES, FIGURES), more=more)
        (line,) = [line for line in found.results if line.startswith("another class")]
        return found.verdict, line

    # Five runs leave the spread uncertain: Student's t of 4 degrees of freedom, 2.132, not the 1.645 of a known one.
    word, line = weighed()
    assert word == "inconclusive" and "0.0100 ± 0.0140 apart, margin 0.02: inconclusive" in line
    assert line.endswith("about 2 more seeds: make reproduce RUN=… SEEDS=3")
    word, line = weighed(0.395, 0.402)
    assert word == EQUIVALENT and "weighed as 3 other seeds against the recipe's figure" in line
    assert weighed(0.44, 0.44, 0.44, 0.44)[0] == DIFFERENT


def test_seeds_of_the_other_class_tell_of_a_spread_that_the_recipe_does_not_state():
    recipe = {"metric": "AP", "value": 0.4, "margin": 0.05}
    before = texts()
    after = texts(weights="bb", value=0.41, of_class={**CLASS, **CAPPED})
    for recorded in (before, after):
        recorded["config.yaml"] += f"figure: {json.dumps(recipe)}\n"
    alone = compare(before, after, (FIGURES, FIGURES))
    assert not alone.weighed and alone.results[-1].startswith("another class, and by how much")
    found = compare(before, after, (FIGURES, FIGURES), more=(0.395, 0.402))
    assert found.weighed and found.verdict == EQUIVALENT
    # Student's t of 2 degrees of freedom, 2.920, times 0.0075 and the root of 1 + 1/3.
    assert "0.0023 ± 0.0253 apart, margin 0.05: equivalent" in found.results[-1]


@pytest.mark.parametrize(
    ("value", "word", "by_seeds"),
    [(0.705, EQUIVALENT, EQUIVALENT), (0.75, "inconclusive", DIFFERENT)],
)
def test_a_training_shorter_than_the_recipe_has_not_its_spread(value, word, by_seeds):
    recipe = {"metric": "AP", "value": 0.9, "margin": 0.02, "seeds": 5, "sd": 0.005}
    before = texts(value=0.7)
    after = texts(weights="bb", value=value, of_class={**CLASS, **CAPPED})
    for recorded in (before, after):
        recorded["config.yaml"] += f"figure: {json.dumps(recipe)}\n"
    found = compare(before, after, (FIGURES, FIGURES))
    assert found.verdict == word
    assert not any("standard deviation" in line for line in found.results)
    assert found.results[-1].startswith("another class, and by how much two seeds")
    assert not found.weighed
    # Other seeds of it tell of its own: against that one run, by Student's t of 2 degrees of freedom.
    seeds = compare(before, after, (FIGURES, FIGURES), more=(value + 0.001, value - 0.001))
    assert seeds.weighed and seeds.verdict == by_seeds
    assert "weighed as 3 other seeds against the first run" in seeds.results[-1]
    assert f"{value - 0.7:.4f} ± 0.0034 apart, margin 0.02: {by_seeds}" in seeds.results[-1]


def test_equal_bits_of_two_classes_are_identical():
    lines = compare(texts(), texts(of_class={**CLASS, **CAPPED}), (FIGURES, FIGURES)).lines()
    assert lines[0].startswith("class: instruction set") and lines[-1] == "identical"


def test_equal_classes_are_said_to_be_equal():
    lines = compare(texts(), texts(weights="bb"), (FIGURES, FIGURES)).lines()
    assert lines[0] == "class: the same" and lines[-1] == "equivalent"


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"processor": {**PROCESSOR, "model": "1"}}, "processor model 17 -> 1"),
        (
            {"processor": {**PROCESSOR, "caches": {"L2": {"bytes": 1048576}}}},
            "L2 cache 524288 -> 1048576",
        ),
        (
            {"processor": {**PROCESSOR, "instructions": ["avx2", "fma"]}},
            "processor instructions -avx512f +fma",
        ),
        ({"variables": {"OPENBLAS_CORETYPE": "Haswell"}}, "OPENBLAS_CORETYPE not set -> Haswell"),
        (
            {"variables": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}},
            "ONEDNN_MAX_CPU_ISA not set -> AVX512_CORE",
        ),
        ({"threads": {"intra_op": 1}}, "threads.intra_op 2 -> 1"),
        ({"tensorflow": "2.21.0\x1b[31m"}, "TensorFlow 2.20.0 -> 2.21.0\\x1b[31m"),
    ],
)
def test_every_part_of_the_class_is_named(changed, line):
    found = classes.compare(CLASS, {**CLASS, **changed})
    assert found.lines() == [f"class: {line}; bits are not promised"]


IN_FORCE = {**CLASS, "onednn_in_force": "on"}


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"onednn_in_force": "off", "variables": {"TF_ENABLE_ONEDNN_OPTS": "0"}},
            "oneDNN on -> off (TF_ENABLE_ONEDNN_OPTS)",
        ),
        ({"onednn_in_force": "off"}, "oneDNN on -> off"),
    ],
)
def test_a_variable_explains_what_it_has_turned_off(changed, line):
    found = classes.compare(IN_FORCE, {**IN_FORCE, **changed})
    assert found.differing == [line]


def test_a_variable_that_asks_for_what_is_in_force_anyway_is_not_blamed():
    asked = {**IN_FORCE, "variables": {"TF_ENABLE_ONEDNN_OPTS": "1"}}
    assert classes.compare(IN_FORCE, asked).promised


def test_what_an_earlier_version_did_not_record_is_neither_equal_nor_blamed():
    older = {**CLASS, "onednn": "default"}
    wider = {**IN_FORCE, "libjpeg": "2.1.4", "threads": {"intra_op": 1}}
    assert classes.compare(older, wider).lines() == [
        "class: oneDNN, libjpeg-turbo not recorded by the first run; bits are not promised",
        "  threads.intra_op 2 -> 1",
    ]
    assert "by the second run" in classes.compare(wider, older).reason()


def flight(*losses: float) -> dict[str, str]:
    steps = [{"step": step, "loss": loss} for step, loss in enumerate(losses, start=1)]
    return {"flight.jsonl": "".join(json.dumps(step) + "\n" for step in [{"step": 0}, *steps])}


@pytest.mark.parametrize(
    ("again", "line"),
    [
        ((1.0, 2.0, 3.0, 4.0), None),
        ((1.0, 2.0, 3.0, 4.0004), "in every bit up to step 3, to 4 digits up to step 4"),
        ((1.0, 2.0, 3.3, 4.0), "in every bit up to step 2, to 1 digit up to step 4"),
        (
            (1.0, 2.00002, 9.0, 4.0),
            "in every bit up to step 1, to 5 digits up to step 2, none after",
        ),
        ((5.0, 2.0, 3.0, 4.0), "in no digit from the first step on"),
        ((1.0, 2.0, float("nan"), 4.0), "in every bit up to step 2, none after"),
    ],
)
def test_how_far_losses_agree_is_said(again, line):
    found = agreement.lines(flight(1.0, 2.0, 3.0, 4.0), flight(*again))
    assert found == ([f"losses agree: {line}"] if line else [])


def test_runs_without_a_flight_record_say_nothing_of_it():
    assert agreement.lines({}, flight(1.0)) == []


def with_params(**changed) -> dict[str, str]:
    model = {
        "task": {"train_data": {"seed": 0, "input_path": "/a"}, "losses": {"decay": 0.1, **changed}}
    }
    return {**texts(), "params.yaml": json.dumps(model)}


def test_a_changed_default_of_model_garden_is_named_where_nothing_else_explains_it():
    before, after = with_params(), with_params(decay=0.2)
    named = "Model Garden's default task.losses.decay: 0.1 -> 0.2"
    assert inputs.differing(before, after)["config"] == [named]
    after["config.yaml"] = texts(seed=1)["config.yaml"]
    assert inputs.differing(before, after)["config"] == [
        "seed: 0 -> 1",
        "as resolved task.losses.decay: 0.1 -> 0.2",
    ]
    assert inputs.differing(texts(), after)["config"] == ["seed: 0 -> 1"]


def test_the_shard_with_other_bytes_and_the_file_with_another_line_are_named():
    shards = [{"file": f"train-{number}.tfrecord", "sha256": "a" * 64} for number in range(2)]
    changed = [shards[0], {**shards[1], "sha256": "b" * 64}]
    before, after = (
        texts(diff="diff --git a/x b/x\n+1\ndiff --git a/y b/y\n+2\n"),
        texts(diff="diff --git a/x b/x\n+1\ndiff --git a/y b/y\n+3\ndiff --git a/z b/z\n+2\n"),
    )
    for recorded, listed in ((before, shards), (after, changed)):
        split = {"examples": 2, "shards": listed}
        recorded["manifest.json"] = json.dumps({"fingerprint": "f", "splits": {"train": split}})
    found = inputs.differing(before, after)
    assert found["data"] == [f"train.train-1.tfrecord: {'a' * 12} -> {'b' * 12}"]
    assert found["code"] == ["uncommitted changes differ (diff.patch): y, z"]


def test_a_class_that_was_not_recorded_is_not_called_equal():
    old = {"tensorflow": "2.20.0", "threads": {"intra_op": 1}}
    lines = compare(texts(of_class=old), texts(weights="bb"), (FIGURES, FIGURES)).lines()
    assert lines[:2] == [
        "class: not recorded by the first run; bits are not promised",
        "  threads.intra_op 1 -> 2",
    ]
    assert lines[-1].startswith("equivalent; class: not recorded")
    assert classes.compare(old, old).lines() == [lines[0]]
    assert classes.compare(CLASS, {}).lines()[0].startswith("class: not recorded by the second run")


def test_a_processor_that_its_system_hides_is_not_called_equal():
    hidden = {**CLASS, "processor": dict.fromkeys(PROCESSOR)}
    assert "processor of the first run is not known" in classes.compare(hidden, hidden).lines()[0]


def test_a_recorded_class_is_compared_with_this_machine_before_anything_is_trained(monkeypatch):
    here = {"processor": PROCESSOR, "libc": None, "variables": {}}
    monkeypatch.setattr(classes.arithmetic, "describe", lambda: here)
    imported = {"variables": {**here["variables"], "TF2_BEHAVIOR": "1"}}
    assert classes.here(texts(of_class={**CLASS, **here, **imported})).promised
    assert classes.here(texts(of_class={**CLASS, **here})).promised
    assert (
        classes.here(texts(of_class={**CLASS, **here, **CAPPED})).reason()
        == "instruction set SSE41 -> AVX512_CORE (ONEDNN_MAX_CPU_ISA)"
    )
