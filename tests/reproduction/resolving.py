"""Every published recipe and upstream's own settings, resolved by the installed Model Garden, field by field.

A process of its own, since the projects register their experiments in it:    python -m tests.reproduction.resolving
"""

import json
import sys
from typing import Any

import tasks
from pipelines import config
from pipelines.data.manifest import Manifest, Split
from pipelines.training import parameters
from pipelines.usage import UsageError
from tests.reproduction import upstream

# Examples to train and to validate on, and classes without a background, of what the recipes of each folder are for;
# clips as many as Model Garden's own settings count.
DATA = {
    "imagenet": (1_281_167, 50_000, 1001),
    "coco": (118_287, 5000, 90),
    "pascal": (10_582, 1449, 21),
    "cityscapes": (2975, 500, 19),
    "kinetics400": (215_570, 17_706, 400),
    "kinetics600": (366_016, 27_780, 600),
}


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by dotted key as the mapping that they are written as."""
    document: dict[str, Any] = {}
    for key, value in settings.items():
        *above, leaf = key.split(".")
        node = document
        for word in above:
            node = node.setdefault(word, {})
        node[leaf] = value
    return document


def leaves(params: Any) -> dict[str, Any]:
    """The leaves of resolved parameters that belong to the recipe."""
    flat = upstream.flat(json.loads(json.dumps(params.as_dict())))
    ignored = upstream.HARDWARE | upstream.PLACES | upstream.OURS
    return {key: flat[key] for key in flat if key.rpartition(".")[2] not in ignored}


def input_size(params: Any) -> list[int]:
    """Edges of what the model sees; of a model for any size, those of its pictures."""
    size = list(getattr(params.task.model, "input_size", None) or [])
    if not size or None in size:
        train = params.task.train_data
        size = list(getattr(train, "feature_shape", None) or train.output_size)
    return size[:-1] if size[-1] == 3 else size


def refused(name: str, cfg: config.Config) -> str:
    """What keeps the recipe from the data that it is for; empty: nothing."""
    if cfg.dataset is None:
        return "no data set"
    task = tasks.load(cfg.dataset.task)
    _, folder, _ = name.split("/")
    train, validation, classes = DATA[folder]
    splits = {"train": Split(train, ()), "validation": Split(validation, ())}
    labels = ("a",) * classes
    about = (cfg.dataset.name, "f", cfg.dataset.task, 1)
    data = Manifest(*about, labels, splits, formats=("jpeg",), directory="DATA")
    try:
        parameters.build(cfg, task, data)
    except UsageError as error:
        return str(error).split("\n")[0]
    return ""


def resolve(name: str) -> dict[str, Any]:
    """What a recipe resolves to, and how that differs from upstream's settings."""
    row = upstream.facts(name)
    cfg = config.compose([f"experiment={name}", "determinism=off"])
    expected = parameters.registered(row["experiment"], cfg.imports)
    expected.override(nested(upstream.settings(name)), is_strict=True)
    ours = parameters.build(cfg)
    return {
        "name": cfg.name,
        "differences": config.differences(leaves(expected), leaves(ours)),
        "input_size": input_size(ours),
        "steps": ours.trainer.train_steps,
        "batch": ours.task.train_data.global_batch_size,
        "refused": refused(name, cfg),
    }


if __name__ == "__main__":
    documents = {}
    for option in upstream.PUBLISHED:
        try:
            documents[option] = resolve(option)
        except (UsageError, KeyError, ValueError) as error:
            documents[option] = {"differences": [str(error)]}
    json.dump(documents, sys.stdout)
