"""Choosing a network: limits, an order with reasons, and a command that exists."""

import re
from dataclasses import replace

import pytest

from pipelines import config
from pipelines.commands import choose
from pipelines.usage import UsageError
from pipelines.weights import choice, rows
from pipelines.weights.choice import Wanted

ROWS = rows.load()


def test_what_a_limit_forbids_or_cannot_be_known_to_keep_is_out_with_a_reason():
    kept, out = choice.rank(ROWS, Wanted("classification", max_params_m=6, max_cpu_ms=30))
    assert kept and all(row.params_m <= 6 and row.cpu_ms <= 30 for row in kept)
    assert "over 6" in out["keras_vgg16"] and "not known" in out["efficientnet_lite0"]


def test_few_images_want_weights_that_are_here_and_many_the_highest_figure():
    few, _ = choice.rank(ROWS, Wanted("detection", images=300))
    assert few[0].name == "retinanet_lite0"
    many, _ = choice.rank(ROWS, Wanted("detection", images=100_000))
    assert many[0].value == max(row.value for row in many if row.value)
    assert "300 images are few" in Wanted("detection", images=300).reason(few[0], few[1])


def test_a_licence_is_kept():
    kept, _ = choice.rank(ROWS, Wanted("classification", licence="Apache-2.0"))
    assert [row.name for row in kept] == ["efficientnet_lite0"]


@pytest.mark.parametrize("row", [row for row in ROWS if row.experiment], ids=lambda row: row.name)
def test_the_command_names_an_experiment_that_there_is(row):
    assert row.experiment in config.options("experiment")
    assert f"EXP={row.experiment}" in row.command("")


@pytest.mark.parametrize("row", [row for row in ROWS if row.garden], ids=lambda row: row.name)
def test_a_published_row_starts_its_own_network_and_no_other_of_its_family(row):
    # Experiments that Model Garden registers have one network each, and rows differ in it.
    assert row.experiment or row.name == "coco_retinanet_r50fpn_640_12ep"


def test_classes_of_a_recipe_give_way_to_those_of_the_data():
    row = next(row for row in ROWS if row.name == "imagenet_resnet101_200ep")
    assert row.command("") == "make train EXP=published/imagenet/resnet101_200ep"
    assert "DATA=digits ARGS='~task.model.num_classes'" in row.command("digits")
    cfg = config.compose([*row.words(), "dataset=digits", "~task.model.num_classes"])
    assert "num_classes" not in cfg.task["model"]
    there = row.command("voc", ["dataset.root=/photos"])
    assert there.endswith("DATA=voc ARGS='~task.model.num_classes dataset.root=/photos'")
    silent = next(row for row in ROWS if row.name == "coco_retinanet_spinenet96")
    assert silent.command("voc").endswith("retinanet_spinenet96 DATA=voc")


def test_a_limit_of_this_machine_is_kept_by_what_was_measured_alone():
    fast = replace(ROWS[0], here_ms=5.0)
    slow = replace(ROWS[0], name="slow", here_ms=50.0)
    unknown = replace(ROWS[0], name="unknown")
    wanted = Wanted(ROWS[0].task, max_ms=10)
    kept, out = choice.rank([fast, slow, unknown], wanted)
    assert kept == [fast]
    assert "over 10" in out["slow"] and "not known" in out["unknown"]


def test_memory_is_a_limit_that_only_what_was_measured_keeps():
    small = replace(ROWS[0], memory_mb=50)
    large = replace(ROWS[0], name="large", memory_mb=500)
    unknown = replace(ROWS[0], name="unknown")
    kept, out = choice.rank([small, large, unknown], Wanted(ROWS[0].task, max_memory_mb=100))
    assert kept == [small]
    assert "over 100" in out["large"] and "not known" in out["unknown"]


@pytest.mark.parametrize("task", rows.NETWORKS)
def test_a_limit_of_the_file_leaves_networks_of_every_task(task):
    kept, out = choice.rank(ROWS, Wanted(task, max_size_mb=20))
    assert kept and not any("not known" in reason for reason in out.values())
    stated = next(row for row in ROWS if row.name == "keras_mobilenet")
    assert stated.size_mb == 16.0  # as published, not 4 bytes for each of 4.3 million


def test_networks_are_timed_on_this_machine(tmp_path, capsys):
    words = ["task=segmentation", "images=300", "--measure=1", f"runs_dir={tmp_path}"]
    assert choose.main(words) == 0
    printed = capsys.readouterr().out
    spent = re.search(
        r"measured .*deeplabv3plus_lite0.*: ([0-9.]+) ms and ([0-9]+) MB of memory", printed
    )
    assert spent and float(spent[1]) > 0
    assert 15 < float(spent[2]) < 2000  # More than its weights in float32.
    assert printed.count(f" {spent[1]} ") >= 2  # In its row too.


@pytest.mark.slow
def test_memory_is_that_of_the_network_alone():
    row = next(row for row in ROWS if row.name == "deeplabv3plus_lite0")
    # What the first left would have been used again.
    first, second = (choose._timed(row).memory_mb for _ in range(2))
    assert first and second == pytest.approx(first, rel=0.3)


def test_the_command_prints_reasons_a_command_and_a_picture(tmp_path, capsys):
    words = ["task=detection", "images=300", "max_params_m=40", f"runs_dir={tmp_path}"]
    assert choose.main(words) == 0
    printed = capsys.readouterr().out
    assert "start from it: make finetune EXP=retinanet_lite0" in printed
    assert "your own: make finetune EXP=retinanet_lite0 DATA=voc ARGS='dataset.root=" in printed
    assert "after it: " in printed and "none was measured here" in printed
    assert (tmp_path / "choice.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=detektion"], "did you mean detection"),
        ([], "say task="),
        (["task=detection", "max_params_m=many"], "is no number"),
        (["task=detection", "max_params_m=0.1"], "no network keeps the limits"),
        (["task=detection", "target=moon"], "target"),
    ],
)
def test_what_cannot_be_chosen_says_why(words, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        choose.main([*words, f"runs_dir={tmp_path}"])
