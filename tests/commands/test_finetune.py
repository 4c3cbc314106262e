"""Defaults of fine-tuning, by the size of the data."""

import pytest

from pipelines.commands import finetune
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
    assert finetune._defaults(PRETRAINED, 205, said) == {}


def test_random_weights_are_never_frozen():
    cfg = compose(["experiment=retinanet_lite0", "init=scratch"])
    assert finetune._defaults(cfg, 50, [])["frozen"][0] == 0.0


def test_an_experiment_without_weights_is_told_how_to_name_some():
    with pytest.raises(UsageError, match="add INIT="):
        finetune.main(["experiment=resnet"])
