"""What a recipe resolves to, held as text: an upgrade of Model Garden, or a change of ours, shows as a difference."""

import pytest
import yaml

import tasks
from pipelines import config
from pipelines.data.manifest import Manifest, Split
from pipelines.training import parameters
from tests import golden

EXPERIMENTS = sorted(config.options("experiment"))
# Examples to train and to validate on, and classes, of what the recipes are for.
DATA = {
    "digits": (1437, 360, 10),
    "digit_scenes": (4000, 200, 10),
    "digit_masks": (4000, 200, 11),
    "imagenet2012": (1_281_167, 50_000, 1001),
    "coco2017": (118_287, 5000, 90),
    "pascal_voc_2012": (10_582, 1449, 21),
}


def resolved(name: str) -> str:
    """Everything that Model Garden's trainer is given, as YAML, but for the paths of the records."""
    cfg = config.compose([f"experiment={name}"])
    train, validation, classes = DATA[cfg.dataset.name]
    splits = {"train": Split(train, ()), "validation": Split(validation, ())}
    labels = ("a",) * classes
    data = Manifest(
        cfg.dataset.name,
        "f",
        cfg.dataset.task,
        1,
        labels,
        splits,
        formats=("jpeg",),
        directory="DATA",
    )
    params = parameters.build(cfg, tasks.load(cfg.dataset.task), data)
    return yaml.safe_dump(params.as_dict(), width=100)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_recipe_resolves_to_what_it_did(name: str) -> None:
    difference = golden.changes(f"params/{name}.yaml", resolved(name))
    assert not difference, f"{difference}\nif this is meant: make golden"
