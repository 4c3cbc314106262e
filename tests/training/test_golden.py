"""What a recipe resolves to and what its first steps give, held as text.

An upgrade of Model Garden, or a change of ours, shows as a difference. The bits of a training are held per determinism
class: a class that is not on record yet is said, with the command that adds it, and is no failure.
"""

import hashlib
import json
import warnings
from pathlib import Path

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


# What makes each recipe small: images of 64 pixels, a few of them at a time.
SCENES = [
    "task.model.input_size=[64,64,3]",
    "task.train_data.global_batch_size=4",
    "task.validation_data.global_batch_size=5",
]
PIXELS = ["task.train_data.output_size=[64,64]", "task.validation_data.output_size=[64,64]"]
CLASSES = ["task.train_data.global_batch_size=8", "task.validation_data.global_batch_size=5"]
SMALL = {
    "deeplabv3plus": ("segmentation", [*SCENES, *PIXELS]),
    "fasterrcnn": ("detection", SCENES),
    "maskrcnn": ("detection", [*SCENES, "task.train_data.parser.mask_crop_size=28"]),
    "mobilenet": ("classification", CLASSES),
    "resnet": ("classification", CLASSES),
    "retinanet": ("detection", SCENES),
    "segmentation_fpn": ("segmentation", [*SCENES, *PIXELS]),
    "vit": ("classification", CLASSES),
}
STEPS = 6


def determinism_class(run_dir: Path) -> str:
    """A short name for what the bits of a run depend on beside its configuration."""
    environment = json.loads((run_dir / "environment.json").read_text())
    described = json.dumps(environment["determinism_class"], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:8]


def first_steps(run_dir: Path) -> str:
    """The processor, then a line a step with its loss, then the digest of all weights."""
    processor = json.loads((run_dir / "environment.json").read_text())["cpu"]
    steps = [json.loads(line) for line in (run_dir / "flight.jsonl").read_text().splitlines()]
    losses = [f"step {step['step']} loss {step['loss']!r}" for step in steps if step["step"]]
    digest = json.loads((run_dir / "summary.json").read_text())["weights_sha256"]
    return "\n".join([f"# {processor}", *losses, f"weights {digest}", ""])


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_first_steps_of_a_recipe_give_the_bits_on_record(name, trellis, tiny, tmp_path) -> None:
    task, small = SMALL[name]
    trellis(
        "train", f"experiment={name}", *tiny[task], *small,
        f"trainer.train_steps={STEPS}", f"trainer.validation_interval={STEPS}",
        "trainer.steps_per_loop=1", "trainer.summary_interval=1", f"trainer.checkpoint_interval={STEPS}",
        "trainer.optimizer_config.warmup.linear.warmup_steps=1",
        "threads.intra_op=1", "threads.inter_op=2",
        f"runs_dir={tmp_path}", f"run_dir={tmp_path / 'run'}",
    )  # fmt: skip
    text = first_steps(tmp_path / "run")
    losses = [line for line in text.splitlines() if line.startswith("step")]
    assert len(losses) == STEPS
    # The first rate of a warm-up is zero; then the weights move.
    assert len({line.split()[-1] for line in losses}) >= STEPS - 1
    file = f"losses/{name}.{determinism_class(tmp_path / 'run')}.txt"
    on_record = (golden.FOLDER / file).exists()
    difference = golden.changes(file, text)
    if difference and not on_record:
        warnings.warn(f"new determinism class; `make golden` adds {file}:\n{text}", stacklevel=1)
    else:
        assert not difference, f"{difference}\nif this is meant: make golden"
