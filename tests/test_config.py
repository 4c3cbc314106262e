"""Composition: quick, without TensorFlow, with errors that say what to type instead."""

import dataclasses
import functools
import subprocess
import sys

import pytest
import yaml

from pipelines import config
from pipelines.commands import data, preview
from pipelines.config import compose
from pipelines.usage import UsageError

EXPERIMENTS = sorted(config.options("experiment"))
PRECISION = ("mixed_precision_dtype", "loss_scale")


@functools.cache
def composed(name):
    return compose([f"experiment={name}"])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_under_its_own_name(name):
    cfg = composed(name)
    assert cfg.name == config.recorded_name(name)
    assert cfg.garden and cfg.dataset is not None


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_chooses_no_hardware_and_no_place(name):
    document = yaml.safe_load((config.FOLDER / "experiment" / f"{name}.yaml").read_text())
    assert set(document.get("runtime", {})) <= {*PRECISION, "enable_xla"}
    assert "threads" not in document
    for split in ("train_data", "validation_data"):
        assert "input_path" not in document.get("task", {}).get(split, {})


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_figure_states_its_source(name):
    figure = composed(name).figure
    assert figure is None or (figure.source and figure.metric and figure.margin > 0)


@pytest.mark.parametrize("name", sorted(config.options("runtime")))
def test_a_runtime_never_sets_precision(name):
    document = yaml.safe_load((config.FOLDER / "runtime" / f"{name}.yaml").read_text())
    assert "mixed_precision_dtype" not in document.get("runtime", {})


@pytest.mark.parametrize("group", config.GROUPS)
def test_every_choice_has_a_headline(group):
    assert all(config.options(group).values())


@pytest.mark.parametrize("owner", [config.Config, config.Dataset])
def test_every_setting_has_a_role(owner):
    kinds = {one.name: one.metadata.get("role") for one in dataclasses.fields(owner)}
    assert [name for name, kind in kinds.items() if not isinstance(kind, config.Role)] == []
    verbs = {one.name for one in dataclasses.fields(owner) if one.metadata["verb"]}
    assert verbs == set(config.names(owner, config.VERB))


def test_lists_of_settings_follow_from_the_roles():
    assert config.names(config.Config, config.VERB, verb="launch") == (
        "workers",
        "restarts",
        "print",
    )
    assert config.paths(config.Config) == ("data_dir", "runs_dir", "run_dir")
    assert config.locations("coco") == ("images", "annotations", "masks", "lists")


def test_splits_of_a_tfds_builder_are_no_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = compose(
        ["experiment=resnet", "dataset=tfds", "dataset.lists={train:train,validation:test}"]
    )
    assert config.anchored(cfg).dataset.lists == {"train": "train", "validation": "test"}
    cfg = compose(["experiment=resnet", "dataset=image_folder", "dataset.images=pictures"])
    assert config.anchored(cfg).dataset.images == str(tmp_path / "pictures")


def test_the_command_line_beats_the_experiment():
    cfg = compose(["experiment=retinanet", "dataset=digits", "trainer.train_steps=7", "seed=3"])
    assert (cfg.dataset.name, cfg.trainer["train_steps"], cfg.seed) == ("digits", 7, 3)


def test_a_configuration_survives_its_own_yaml():
    cfg = compose(["experiment=maskrcnn", "determinism=off"])
    assert config.from_yaml(config.to_yaml(cfg)) == cfg


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["experiment=retinent"], "did you mean retinanet"),
        (["dataset=digit_scene"], "did you mean digit_scenes"),
        (["experiment=retinanet", "sead=3"], "did you mean seed"),
        (["experiment=retinanet", "dataset.imags=x"], "did you mean images"),
        (["experiment=retinanet", "seed=abc"], "seed"),
        (["retinanet"], "experiment=retinanet"),
    ],
)
def test_a_slip_of_the_pen_gets_the_nearest_name(overrides, says):
    with pytest.raises(UsageError, match=says):
        compose(overrides)


@pytest.mark.parametrize(
    "value", ["it's", "a b", "x,y", "{z}", "ü=1", "back\\slash", True, None, 3, 0.001, [1, "a"]]
)
def test_any_value_can_be_spelled_as_an_override(value):
    spelled = config.override_value(value)
    assert compose([f"+task.key={spelled}"]).task["key"] == value


def test_showing_and_listing_import_no_heavy_library():
    script = (
        "import sys; sys.argv = ['trellis', 'show', 'experiment=retinanet']\n"
        "from pipelines.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.argv = ['trellis', 'list']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('HEAVY', {'tensorflow', 'apache_beam', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "HEAVY set()" in done.stdout
    assert "retinanet_resnetfpn_coco" in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "name: ${oc.env:SECRET}",
        "task: {model: {name: ['${oc.env:SECRET}']}}",
        "task: {'${oc.env:SECRET}': 1}",
    ],
)
def test_a_recorded_configuration_says_nothing_that_is_still_to_be_looked_up(
    text, tmp_path, monkeypatch
):
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "config.yaml").write_text(text)
    for read in (lambda: config.from_yaml(text), lambda: compose([f"@{tmp_path / 'config.yaml'}"])):
        with pytest.raises(UsageError, match="has no interpolations") as error:
            read()
        assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["[1, 2]", "a: b: c", "seed: many", "sead: 3", "\x00", "dataset: 3"]
)
def test_a_recorded_configuration_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    for read in (lambda: config.from_yaml(text), lambda: compose([f"@{tmp_path / 'config.yaml'}"])):
        with pytest.raises(UsageError):
            read()


def test_every_group_has_a_folder_of_choices():
    assert [group for group in config.GROUPS if not config.options(group)] == []


@pytest.mark.parametrize(
    "verb",
    [
        data.run,
        preview.run,
        lambda cfg: config.chosen_dataset(dataclasses.replace(cfg, garden="resnet_imagenet")),
    ],
)
def test_a_missing_choice_is_named_in_one_way(verb):
    with pytest.raises(UsageError, match="^no dataset given; add DATA=<name>"):
        verb(compose([]))


def test_a_configuration_that_an_earlier_version_recorded_is_read_and_written_in_its_own_fields():
    cfg = compose(["experiment=resnet"])
    document = yaml.safe_load(config.to_yaml(cfg))
    document["benchmark"] = document.pop("figure")
    del document["port"], document["dataset"]["background"]
    earlier = yaml.safe_dump(document)
    assert config.from_yaml(earlier) == cfg
    assert config.settings(document, config.GUARD) == config.settings(
        config.plain(cfg), config.GUARD
    )
    cfg.seed = 7
    assert yaml.safe_load(config.to_recorded_yaml(cfg, earlier)) == {**document, "seed": 7}
