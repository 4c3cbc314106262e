"""What a recipe resolves to and what its first steps give, held as text.

An upgrade of Model Garden, or a change of ours, shows as a difference. The bits of a training are held per determinism
class: a class that is not on record yet is said, with the command that adds it, and is no failure.
"""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

import tasks
from pipelines import config
from pipelines.data.manifest import Manifest, Split
from pipelines.training import parameters
from pipelines.usage import UsageError
from tests import golden
from tests.matrix import registered

# Published recipes are held against upstream's settings in tests/reproduction, and these few of each kind here too.
PUBLISHED = (
    "published/coco/maskrcnn_r50fpn_640",
    "published/coco/retinanet_r50fpn_640_72ep",
    "published/imagenet/mobilenetv2_tpu",
    "published/imagenet/resnet50_90ep",
    "published/pascal/deeplabv3plus_r101",
)
# The catalogue's small forms are tried by `make test-matrix`; the official settings that they stand for are held here.
APART = ("published/", "catalogue/")
OURS = [name for name in config.options("experiment") if not name.startswith(APART)]
EXPERIMENTS = sorted([*OURS, *PUBLISHED])
# Examples to train and to validate on, and classes, of what the recipes are for.
DATA = {
    "bccd": (205, 87, 3),
    "digits": (1437, 360, 10),
    "digit_scenes": (4000, 200, 10),
    "digit_masks": (4000, 200, 11),
    "moving_digits": (480, 120, 6),
    "elpv": (1954, 670, 2),
    "fashion_mnist": (60_000, 10_000, 10),
    "imagenet2012": (1_281_167, 50_000, 1001),
    "coco2017": (118_287, 5000, 90),
    "pascal_voc_2012": (10_582, 1449, 21),
}


def resolved(name: str) -> Any:
    """Everything that Model Garden's trainer is given, but for the paths of the records."""
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
    evaluated = params.trainer.validation_steps * params.task.validation_data.global_batch_size
    assert evaluated >= validation and params.trainer.train_steps > 1
    assert params.trainer.best_checkpoint_eval_metric
    return params


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_recipe_resolves_to_what_it_did(name: str) -> None:
    text = yaml.safe_dump(resolved(name).as_dict(), width=100)
    difference = golden.changes(f"params/{name}.yaml", text)
    assert not difference, f"{difference}\nif this is meant: make golden"


@pytest.mark.parametrize("name", sorted(registered.experiments()))
def test_an_official_experiment_is_registered_as_it_was(name: str) -> None:
    try:
        text = yaml.safe_dump(parameters.registered(name).as_dict(), width=100)
    except UsageError:
        text = "# cannot be imported\n"
    difference = golden.changes(f"params/catalogue/{name}.yaml", text)
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


def determinism_class(run_dir: Path) -> tuple[str, str]:
    """A short name for what the bits of a run depend on beside its configuration, and the most telling of it."""
    environment = json.loads((run_dir / "environment.json").read_text())
    described = environment["determinism_class"]
    text = json.dumps(described, sort_keys=True)
    processor = described["processor"]
    vendor, family, model = (processor[key] for key in ("vendor", "family", "model"))
    told = f"{environment['cpu']}, {vendor} family {family} model {model}, {processor['instruction_set']}"
    name = hashlib.sha256(text.encode()).hexdigest()[:8]
    return name, f"{told}, oneDNN {described['onednn_in_force']}"


def steps_in(text: str) -> list[str]:
    """What must be equal where two classes agree."""
    return [line for line in text.splitlines() if not line.startswith("#")]


def agreeing(name: str, text: str) -> str:
    """The classes on record that give these very bits, in words."""
    files = sorted((golden.FOLDER / "losses").glob(f"{name}.*.txt"))
    same = [file.suffixes[0][1:] for file in files if steps_in(file.read_text()) == steps_in(text)]
    return f"the bits of {', '.join(same)}" if same else "bits that no class on record gives"


def first_steps(run_dir: Path) -> str:
    """The class, then a line a step with its loss, then the digest of all weights."""
    _, told = determinism_class(run_dir)
    steps = [json.loads(line) for line in (run_dir / "flight.jsonl").read_text().splitlines()]
    losses = [f"step {step['step']} loss {step['loss']!r}" for step in steps if step["step"]]
    digest = json.loads((run_dir / "summary.json").read_text())["weights_sha256"]
    return "\n".join([f"# {told}", *losses, f"weights {digest}", ""])


def test_a_new_class_is_told_which_classes_give_its_bits() -> None:
    (file, *_) = sorted((golden.FOLDER / "losses").glob("resnet.*.txt"))
    text = file.read_text()
    steps = "\n".join(steps_in(text))
    assert agreeing("resnet", f"# another processor\n{steps}").startswith("the bits of ")
    assert "no class on record" in agreeing("resnet", text.replace("step 1 loss ", "step 1 loss 1"))


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
    short, _ = determinism_class(tmp_path / "run")
    file = f"losses/{name}.{short}.txt"
    on_record = (golden.FOLDER / file).exists()
    difference = golden.changes(file, text)
    if difference and not on_record:
        gives = agreeing(name, text)
        said = f"new class {short}: {name} gives {gives}; `make golden` adds {file}:\n{text}"
        warnings.warn(said, stacklevel=1)
    else:
        assert not difference, f"{difference}\nif this is meant: make golden"
