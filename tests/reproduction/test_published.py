"""Published recipes: field by field what upstream trains, every model builds, every path rehearsed at reduced size."""

import json
from pathlib import Path

import pytest
import yaml

from pipelines import config
from pipelines.reproduction import benchmark

UPSTREAM = Path(__file__).parent / "upstream.yaml"
PUBLISHED = [name for name in config.options("experiment") if name.startswith("published/")]
HARDWARE = {"distribution_strategy", "num_gpus", "tpu"}
PATHS = {"input_path", "annotation_file", "tfds_data_dir"}
OURS = {"seed", "deterministic", "best_checkpoint_export_subdir", "preemption_on_demand_checkpoint"}  # what every run of ours sets


def upstream(name: str) -> dict:
    return yaml.safe_load(UPSTREAM.read_text())[name.partition("/")[2]]


def flat(node, path="") -> dict:
    if isinstance(node, dict):
        return {key: value for name, item in node.items() for key, value in flat(item, f"{path}.{name}" if path else name).items()}
    return {path: list(node) if isinstance(node, tuple) else node}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_figure_is_the_published_one(name):
    stated, row = config.compose([f"experiment={name}"]).benchmark, upstream(name)
    assert stated.value == pytest.approx(row["figure"] / 100)
    assert {metric: pytest.approx(value * 100) for metric, value in stated.others.items()} == row["others"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_composing_gives_field_by_field_what_upstream_trains(name):
    from pipelines.training import parameters

    row = upstream(name)
    expected = parameters.registered(row["experiment"])
    expected.override(row["overrides"], is_strict=True)
    ours = parameters.build(config.compose([f"experiment={name}", "determinism=off", "runtime=cpu"]))
    ignored = HARDWARE | PATHS | OURS
    one, other = ({key: value for key, value in flat(params.as_dict()).items() if key.rpartition(".")[2] not in ignored} for params in (expected, ours))
    assert other == one


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_model_builds_with_the_published_number_of_parameters(name, tmp_path):
    # A process for each: TensorFlow never gives a built model's memory back.
    import subprocess
    import sys

    script = (
        "import sys; from pipelines import config; from pipelines.training import parameters\n"
        "from official.core import task_factory\n"
        "params = parameters.build(config.compose(['experiment=' + sys.argv[1], 'task.init_checkpoint=null']))\n"
        "model = task_factory.get_task(params.task).build_model()\n"
        "print('MILLIONS', sum(v.shape.num_elements() for v in model.trainable_variables) / 1e6)"
    )
    done = subprocess.run([sys.executable, "-c", script, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    built = float(done.stdout.rpartition("MILLIONS")[2])
    assert built == pytest.approx(upstream(name)["trainable_millions"], abs=0.001)


def test_a_changed_setting_makes_it_a_rescaled_run():
    cfg = config.compose(["experiment=published/imagenet_resnet50_90ep", "trainer.train_steps=3"])
    found = benchmark.changes(cfg, {"train": 1281167, "validation": 50000})
    assert found == ["trainer.train_steps: 28080 -> 3"]
    assert benchmark.judge(cfg, {"accuracy": 0.99}, found).word == benchmark.RESCALED


def test_other_data_make_it_a_rescaled_run():
    cfg = config.compose(["experiment=published/coco_retinanet_r50fpn_640_72ep"])
    assert benchmark.changes(cfg, {"train": 24, "validation": 10}) == ["examples.train: 118287 -> 24", "examples.validation: 5000 -> 10"]


def test_the_recipe_itself_is_judged_by_its_tolerance():
    cfg = config.compose(["experiment=published/imagenet_resnet50_90ep", "task.init_checkpoint=somewhere", "runtime=cpu"])
    assert benchmark.changes(cfg, {"train": 1281167, "validation": 50000}) == []
    assert benchmark.judge(cfg, {"accuracy": 0.759}, []).word == benchmark.REPRODUCED
    assert benchmark.judge(cfg, {"accuracy": 0.757}, []).word == benchmark.MISSED


def test_absent_data_are_named_with_their_origin_and_the_command(trellis, tmp_path):
    printed = trellis("reproduce", "experiment=published/coco_retinanet_r50fpn_640_72ep", f"data_dir={tmp_path}", code=2)
    assert "cocodataset.org" in printed and "make data DATA=coco2017" in printed and "dataset.root" in printed


REHEARSALS = {
    "coco_retinanet_r50fpn_640_72ep": [
        "task.init_checkpoint=null", "task.model.input_size=[128,128,3]", "task.model.backbone.resnet.model_id=10",
        "task.model.detection_generator.pre_nms_top_k=100",
    ],
    "coco_maskrcnn_r50fpn_640": [
        "task.model.input_size=[128,128,3]", "task.model.backbone.resnet.model_id=10", "task.model.detection_head.fc_dims=64",
        "task.model.roi_generator.num_proposals=50", "task.model.roi_generator.test_num_proposals=50",
        "task.model.roi_sampler.num_sampled_rois=32", "task.model.mask_sampler.num_sampled_masks=8",
        "task.model.detection_generator.pre_nms_top_k=100",
    ],
    "imagenet_resnet50_90ep": ["task.model.input_size=[64,64,3]", "task.model.backbone.resnet.model_id=10"],
    "pascal_deeplabv3plus_r101": [
        "task.init_checkpoint=null", "task.model.backbone.dilated_resnet.model_id=50", "task.train_data.output_size=[64,64]",
        "task.validation_data.output_size=[64,64]", "task.validation_data.groundtruth_padded_size=[160,160]",
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", REHEARSALS)
def test_the_whole_path_runs_on_a_fixture_in_the_published_layout(name, trellis, layouts, tmp_path):
    recipe = config.compose([f"experiment=published/{name}"])
    places = [f"dataset.root={layouts[recipe.dataset.name]}", f"data_dir={tmp_path / 'data'}"]
    trellis("data", f"dataset={recipe.dataset.name}", *places)
    run_dir = tmp_path / "runs" / "rehearsal"
    small = [
        *REHEARSALS[name], "runtime.mixed_precision_dtype=float32", "task.train_data.dtype=float32", "task.validation_data.dtype=float32",
        "task.train_data.global_batch_size=4", "task.validation_data.global_batch_size=4", "trainer.train_steps=2", "trainer.steps_per_loop=1",
        "trainer.summary_interval=1", "trainer.validation_interval=2", "trainer.checkpoint_interval=2", "trainer.validation_steps=2",
    ]  # fmt: skip
    printed = trellis("reproduce", f"experiment=published/{name}", *places, *small, f"runs_dir={tmp_path / 'runs'}", f"run_dir={run_dir}", code=3)
    assert printed.strip().splitlines()[-1] == "rescaled"
    document = json.loads((run_dir / "reproduction.json").read_text())
    assert document["word"] == "rescaled" and document["stated"] == recipe.benchmark.value
    assert any(change.startswith("examples.train") for change in document["changes"])
