"""What upstream publishes of each recipe: tests/reproduction/upstream/<data>.yaml."""

import functools
from pathlib import Path
from typing import Any

import yaml

from pipelines import config

FOLDER = Path(__file__).parent / "upstream"
PUBLISHED = [name for name in config.options("experiment") if name.startswith("published/")]
HARDWARE = {
    "distribution_strategy",
    "num_gpus",
    "tpu",
    "all_reduce_alg",
    "tpu_enable_xla_dynamic_padder",
}
# Where the data lie, or which of TFDS's they are: they follow from the data set.
PLACES = {"input_path", "annotation_file", "tfds_data_dir", "tfds_name", "tfds_split"}
# What every run of ours sets.
OURS = {
    "seed",
    "deterministic",
    "best_checkpoint_export_subdir",
    "preemption_on_demand_checkpoint",
}


@functools.cache
def _rows(data: str) -> dict[str, Any]:
    return yaml.load((FOLDER / f"{data}.yaml").read_text(), yaml.CSafeLoader)


def facts(name: str) -> dict[str, Any]:
    """What is known of the row behind `experiment=<name>`."""
    _, data, row = name.split("/")
    return _rows(data)[row]


def settings(name: str) -> dict[str, Any]:
    """What upstream sets, by dotted key, as the installed version wants it written."""
    written = dict(facts(name)["settings"])
    if written.get("task.train_data.aug_type") == "autoaug":
        del written["task.train_data.aug_type"]
        written["task.train_data.aug_type.type"] = "autoaug"
    return written


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted key."""
    if not isinstance(node, dict):
        return {path: node}
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= flat(value, f"{path}.{key}" if path else str(key))
    return leaves
