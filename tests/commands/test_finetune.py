"""Defaults of fine-tuning, by the size of the data."""

import pytest

from pipelines.commands import finetune, train
from pipelines.config import compose
from pipelines.usage import UsageError

PRETRAINED = compose(["experiment=retinanet_lite0", f"init_sha256={'0' * 64}"])


@pytest.mark.parametrize(
    ("images", "epochs", "frozen"),
    [(50, 76, 1.0), (205, 37, 0.3), (2000, 12, 0.1), (1_000_000, 2, 0.1), (5, 80, 1.0)],
)
def test_defaults_follow_from_the_number_of_images(images, epochs, frozen):
    defaults = finetune._defaults(PRETRAINED, images, [])
    assert (defaults["epochs"][0], defaults["frozen"][0]) == (epochs, frozen)


def test_what_the_user_sets_stands():
    said = ["trainer.train_steps=7", "frozen=0.5", "evaluations=2"]
    defaults = finetune._defaults(PRETRAINED, 205, said)
    assert not {"epochs", "frozen", "evaluations"} & set(defaults)


def test_random_weights_are_never_frozen():
    cfg = compose(["experiment=retinanet_lite0", "init=scratch"])
    assert finetune._defaults(cfg, 50, [])["frozen"][0] == 0.0


def test_an_experiment_without_weights_is_told_how_to_name_some():
    with pytest.raises(UsageError, match="add INIT="):
        finetune.main(["experiment=resnet"])


@pytest.mark.parametrize("command", [finetune.main, train.main])
def test_data_of_another_task_are_refused_before_they_are_fetched(command, tmp_path):
    words = ["experiment=retinanet_lite0", "dataset=elpv", f"data_dir={tmp_path}"]
    with pytest.raises(UsageError, match=r"is for detection, and elpv for classification; EXP=eff"):
        command(words)
    assert not list(tmp_path.iterdir())


def test_few_pictures_vary_more_where_the_experiment_varies_them():
    few = finetune._defaults(PRETRAINED, 205, [])
    assert few["task.train_data.parser.aug_scale_min"][0] == 0.7
    many = finetune._defaults(PRETRAINED, 2000, [])
    assert not [key for key in many if key.startswith("task.")]
    lite0 = compose(["experiment=efficientnet_lite0"])
    assert finetune._varied(lite0)["task.train_data.crop_area_range"][0] == "[0.5,1.0]"
    assert finetune._varied(compose(["experiment=elpv"])) == {}  # It crops nothing.


@pytest.mark.parametrize(("images", "rate"), [(205, 0.1), (2000, 0.3)])
def test_more_images_move_the_backbone_farther(images, rate):
    assert finetune._defaults(PRETRAINED, images, [])["released_rate"][0] == rate
    assert "released_rate" not in finetune._defaults(PRETRAINED, 50, [])


def test_a_recipe_whose_figure_is_stated_for_these_images_stays_as_it_is(capsys):
    bccd = compose(["experiment=bccd", f"init_sha256={'0' * 64}"])
    assert finetune._defaults(bccd, bccd.figure.examples["train"], []) == {}
    assert "recipe's own settings" in capsys.readouterr().out
    assert finetune._defaults(bccd, 99, [])["frozen"][0] == 1.0


def test_defaults_are_settings_that_there_are():
    defaults = finetune._defaults(PRETRAINED, 205, [])
    chosen = [f"{key}={value}" for key, (value, _) in defaults.items()]
    cfg = compose(["experiment=retinanet_lite0", *chosen])
    assert cfg.epochs == 37 and cfg.task["train_data"]["parser"]["aug_scale_max"] == 1.4
