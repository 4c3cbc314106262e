"""Published recipes: field by field what upstream trains, every model builds, every path rehearsed at reduced size."""

import fcntl
import functools
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from pipelines import config
from pipelines.commands import reproduce
from pipelines.reproduction import figure
from pipelines.usage import UsageError
from tests import golden
from tests.reproduction import drift, upstream
from tests.reproduction.upstream import PUBLISHED, facts, flat

PAGE = config.FOLDER.parent / "docs" / "published.md"
TABLE = yaml.load((config.FOLDER / "published.yaml").read_text(), yaml.CSafeLoader)
# Upstream's word for a figure, and the evaluator's.
METRICS = {
    "top1": "accuracy",
    "top5": "top_5_accuracy",
    "top1_qat": "accuracy",
    "top1_qat_int8": "accuracy",
    "top1_linear_eval_k600": "accuracy",
    "box_ap": "AP",
    "box_ap50": "AP50",
    "box_ap_qat": "AP",
    "mask_ap": "mask_AP",
    "miou": "mean_iou",
}
# Published, and not what the recipe's evaluation gives, or not to be read.
WITHOUT_FIGURE = {
    "published/coco/cascadercnn_maxvit_small_i896",  # other settings, as the next four
    "published/coco/maskrcnn_spinenet49",
    "published/imagenet/resnet50_200ep",
    "published/imagenet/resnet101_200ep",
    "published/imagenet/resnet152_200ep",
    "published/coco/deep_mask_head_rcnn_voc_r50",  # over some of the classes, as the next three
    "published/coco/deep_mask_head_rcnn_voc_r50_hg52",
    "published/coco/deep_mask_head_rcnn_voc_r101_hg52",
    "published/coco/deep_mask_head_rcnn_voc_spinenet143_hg52",
    "published/imagenet/mobilenetv3_large_qat_tpu",  # "0.74.43"
}


def written(name: str) -> dict:
    """A recipe's file, as it stands there."""
    text = (config.FOLDER / "experiment" / f"{name}.yaml").read_text()
    return yaml.load(text, yaml.CSafeLoader)


def in_words_of_the_evaluator(metrics: dict) -> dict[str, set[float]]:
    """Published figures in percent as fractions; several words of upstream's may mean one figure."""
    figures: dict[str, set[float]] = {}
    for word, value in metrics.items():
        if word in METRICS:
            figures.setdefault(METRICS[word], set()).add(round(value / 100, 6))
    return figures


def test_every_published_row_that_applies_has_a_recipe():
    assert len(PUBLISHED) == 132
    assert [name.removeprefix("published/") for name in PUBLISHED] == list(TABLE)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_figure_is_the_published_one(name):
    stated, row = written(name).get("figure"), facts(name)
    assert (stated is None) == (name in WITHOUT_FIGURE)
    if stated is None:
        return
    published = in_words_of_the_evaluator(row["metrics"])
    assert stated["value"] in published[stated["metric"]]
    for metric, value in stated.get("others", {}).items():
        assert value in published[metric]
    for source, values in stated.get("elsewhere", {}).items():
        (other,) = [each for each in row["other_figures"] if each["source"] == source]
        there = in_words_of_the_evaluator(other["metrics"])
        assert there == {metric: {value} for metric, value in values.items()}
    assert row["source"] in stated["source"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_another_figure_of_another_source_is_said(name):
    headers = (config.FOLDER / "experiment" / f"{name}.yaml").read_text()
    stated = written(name).get("figure") or {}
    for other in facts(name).get("other_figures", []):
        assert other["source"] in headers
        assert other["source"] in stated.get("elsewhere", {}) or f"{other['source']} has" in headers


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_says_what_upstream_sets_and_nothing_else(name):
    document = written(name)
    nodes = {node: document[node] for node in config.GARDEN_NODES if node in document}
    ignored = upstream.HARDWARE | upstream.PLACES
    settings = upstream.settings(name)
    expected = {key: settings[key] for key in settings if key.rpartition(".")[2] not in ignored}
    assert flat(nodes) == expected
    assert document["garden"] == facts(name)["experiment"]


def test_the_page_lists_every_drift():
    text = PAGE.read_text()
    heading = "| recipe | said | resolved, or said elsewhere |\n|---|---|---|\n"
    before, _, after = text.partition(heading)
    _, _, rest = after.partition("\n\n")
    expected = before + heading + "\n".join(drift.lines(TABLE)) + "\n\n" + rest
    if golden.RENEW:
        PAGE.write_text(expected)
    assert PAGE.read_text() == expected, "if this is meant: make golden"


@pytest.fixture(scope="module")
def resolved(common) -> dict:
    """What all recipes resolve to, once, in a process of its own, since the projects register their experiments in it."""
    file = common / "resolved.json"
    with (common / "resolved.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            command = [sys.executable, "-m", "tests.reproduction.resolving"]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
            file.write_text(done.stdout)
    return json.loads(file.read_text())


@pytest.mark.slow
def test_composing_gives_field_by_field_what_upstream_trains(resolved):
    differing = [name for name in PUBLISHED if resolved[name]["differences"]]
    assert {name: resolved[name]["differences"] for name in differing} == {}
    names = {name: resolved[name]["name"] for name in PUBLISHED}
    assert names == {name: config.recorded_name(name) for name in PUBLISHED}


@pytest.mark.slow
@pytest.mark.parametrize("key", ["input_size", "steps", "batch"])
def test_the_table_says_what_the_recipes_resolve_to(key, resolved):
    said = {f"published/{name}": row[key] for name, row in TABLE.items()}
    assert said == {name: document[key] for name, document in resolved.items()}


# Those whose classes are not counted as ours are: 80 without a background, 90 without one.
COUNTED_OTHERWISE = ("yolo", "scaled_yolo", "centernet", "detr")


@pytest.mark.slow
def test_recipes_fit_the_data_that_they_name(resolved):
    refused = {name for name in PUBLISHED if resolved[name]["refused"]}
    others = {name.rpartition("/")[2] for name in refused}
    assert {name for name in others if not name.startswith(COUNTED_OTHERWISE)} == set()


# The smallest of eleven families, some seconds each: all 132 take hours, and gigabytes each. Detectors in two stages take 20 to 40
# seconds to be built; the catalogue's small forms build those families, one or two with every commit.
BUILT = [
    "published/imagenet/mobilenetv2_tpu",
    "published/imagenet/mobilenetv3_small_tpu",
    "published/imagenet/resnet50_90ep",
    "published/imagenet/resnetrs50_i160",
    "published/imagenet/vit_ti16_i224_deit",
    "published/coco/retinanet_spinenet49xs_mobile",
    "published/coco/detr_r50_300ep",
    "published/pascal/deeplabv3_mobilenetv2_qat",
    "published/pascal/deeplabv3_r101",
    "published/kinetics400/slowonly_8x8",
    "published/kinetics600/cvrl_r3d50_800ep",
    "published/kinetics600/movinet_a0_base",
]


@pytest.mark.slow
def test_models_build_with_the_number_of_parameters_that_was_counted():
    command = [sys.executable, "-m", "tests.reproduction.building", *BUILT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("published/")]
    assert [line[0] for line in lines] == BUILT
    assert [float(line[1]) for line in lines] == pytest.approx(
        [facts(name)["trainable_millions"] for name in BUILT], abs=0.001
    )


WHOLE = {
    "coco": {"train": 118287, "validation": 5000},
    "imagenet": {"train": 1281167, "validation": 50000},
}


@functools.cache
def recipe(name: str, *overrides: str) -> config.Config:
    return config.compose([f"experiment=published/{name}", *overrides])


def departures(name: str, *overrides: str) -> figure.Departures:
    """Of the recipe on data of full size, under these overrides."""
    whole = WHOLE[name.partition("/")[0]]
    return figure.departures(recipe(name, *overrides), whole, reproduce._resolved)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.train_steps=3", "trainer.train_steps: 33264 -> 3"),
        ("figure.value=0", "figure.value: 0.368 -> 0.0"),
        ("figure.margin=1", "figure.margin: 0.005 -> 1.0"),
        ("figure.metric=AP50", "figure.metric: AP -> AP50"),
        ("figure.examples={train:24}", "figure.examples.train: 118287 -> 24"),
        ("scale_learning_rate=1", "scale_learning_rate: None -> 1"),
        ("task.init_checkpoint=null", "task.init_checkpoint: gs://"),
        ("dataset.keep_category_ids=false", "dataset.keep_category_ids: True -> False"),
        ("dataset.max_reject_fraction=0.9", "dataset.max_reject_fraction: 0.01 -> 0.9"),
        ("dataset.include_masks=false", "dataset.include_masks: None -> False"),
        ("dataset.validate=none", "dataset.validate: sample -> none"),
        ("dataset=coco", "dataset.name: coco2017 -> coco"),
        ("imports=[json]", "imports: [] -> ['json']"),
        ("determinism=off", "determinism: True -> False"),
        ("epochs=1", "epochs: None -> 1.0"),
        ("evaluations=3", "evaluations: 10 -> 3"),
        (
            "runtime.mixed_precision_dtype=float16",
            "runtime.mixed_precision_dtype: bfloat16 -> float16",
        ),
    ],
)
def test_whatever_departs_from_the_recipe_is_listed_and_makes_it_a_rescaled_run(override, line):
    asked = ("coco/retinanet_r50fpn_640_72ep", override)
    found = departures(*asked)
    assert any(changed.startswith(line) for changed in found.changed), found
    stated = figure.stated(recipe(*asked))
    for value in (0.001, 0.99):
        verdict = figure.judge(stated, {0: {"AP": value, "AP50": value}}, found)
        declared = verdict.figure
        assert (verdict.word, declared.value, declared.margin) == (figure.RESCALED, 0.368, 0.005)
        assert any(text.startswith(f"changed: {line}") for text in verdict.lines())


def test_starting_weights_the_recipe_does_not_have_make_it_a_rescaled_run():
    found = departures("imagenet/resnet50_90ep", "task.init_checkpoint=somewhere")
    assert (
        found.changed == ("task.init_checkpoint: None -> somewhere",)
        and found.word == figure.RESCALED
    )


def test_a_copy_of_the_starting_weights_cannot_be_told_from_others_and_the_verdict_says_so():
    name = "coco/retinanet_r50fpn_640_72ep"
    found = departures(name, "task.init_checkpoint=/copy/ckpt-1", "runtime=tpu")
    assert found.changed == () and found.word == figure.UNVERIFIED
    assert found.unverified[0].endswith(" -> /copy/ckpt-1, content not verified")
    stated = figure.stated(config.compose([f"experiment=published/{name}"]))
    assert figure.judge(stated, {0: {"AP": 0.4}}, found).lines()[-1] == "not verified"


@pytest.mark.parametrize(
    "override", ["seed=3", "runtime=tpu", "runtime=gpu", "threads.intra_op=4", "logical_cpus=2"]
)
def test_another_seed_or_machine_is_no_departure_but_is_said(override):
    asked = ("imagenet/resnet50_90ep", override)
    found = departures(*asked)
    assert found.word is None and found.noted
    verdict = figure.judge(figure.stated(recipe(*asked)), {0: {"accuracy": 0.759}}, found)
    assert verdict.word not in (figure.RESCALED, figure.UNVERIFIED)
    assert any("no departure: " in line for line in verdict.lines())


def test_thread_counts_that_a_recipe_states_belong_to_it():
    cfg = config.compose(["experiment=resnet", "threads.intra_op=7"])
    stated = config.compose(["experiment=resnet"]).threads.intra_op
    found = figure.departures(cfg, {}, reproduce._resolved)
    assert f"threads.intra_op: {stated} -> 7" in (found.noted if stated is None else found.changed)


def test_places_and_what_is_noted_beside_are_no_departure(tmp_path):
    found = departures(
        "imagenet/resnet50_90ep", f"data_dir={tmp_path}", f"run_dir={tmp_path}", f"dataset.root={tmp_path}",
        "dataset.images={train:a,validation:b}", "trainer.max_to_keep=1", "flight=off", "runner=dask",
    )  # fmt: skip
    assert found == figure.Departures()


def test_other_data_make_it_a_rescaled_run():
    cfg = config.compose(["experiment=published/coco/retinanet_r50fpn_640_72ep"])
    found = figure.departures(cfg, {"train": 24, "validation": 10}, reproduce._resolved)
    assert found.changed == ("examples.train: 118287 -> 24", "examples.validation: 5000 -> 10")


def test_runs_of_the_recipe_itself_are_weighed_by_its_margin_and_their_spread():
    stated = figure.stated(config.compose(["experiment=published/imagenet/resnet50_90ep"]))

    def verdict(*values: float) -> figure.Verdict:
        runs = {seed: {"accuracy": value} for seed, value in enumerate(values)}
        return figure.judge(stated, runs, figure.Departures())

    narrow = verdict(stated.value, stated.value + 0.0002, stated.value - 0.0002)
    assert narrow.word == figure.REPRODUCED
    for far in (-0.02, 0.02):  # Too good is no reproduction either.
        off = stated.value + far
        missed = verdict(off, off + 0.001, off - 0.001)
        assert missed.lines()[-1] == figure.NOT_REPRODUCED
    assert verdict(stated.value, stated.value + 0.001).sentence().startswith("inconclusive: ")
    assert verdict(stated.value + 0.01).word == figure.INCONCLUSIVE
    document = json.loads(json.dumps(narrow.document()))
    assert document["figure"]["margin"] == stated.margin
    assert document["values"] == {"0": 0.761, "1": 0.7612, "2": 0.7608}


def test_a_recipe_made_of_another_does_not_take_the_spread_behind_its_figure():
    stated = figure.stated(config.compose(["experiment=fashion_mnist"]))
    assert (stated.value, stated.seeds, stated.sd) == (0.934, 1, None)


def test_a_verdict_with_a_known_spread_is_kept_as_json():
    stated = figure.stated(config.compose(["experiment=resnet"]))
    known = replace(stated, seeds=1, sd=0.005)
    document = figure.judge(known, {0: {"accuracy": 0.98}}, figure.Departures()).document()
    kept = json.loads(json.dumps(document, allow_nan=False))
    assert kept["spread"] == {"sd": 0.005, "freedom": None}


def test_a_margin_declared_after_the_run_is_a_departure():
    cfg = config.compose(["experiment=resnet"])
    recorded = config.to_yaml(cfg).replace("margin: 0.018", "margin: 0.005")
    stated = figure.stated(cfg)
    assert figure.redeclared(stated, config.to_yaml(cfg)) == ()
    assert figure.redeclared(stated, recorded) == (
        "figure.margin: 0.005 -> 0.018, declared after the run",
    )
    earlier = recorded.replace("margin: 0.005", "tolerance: 0.018")
    assert figure.redeclared(stated, earlier) == ()


def test_what_so_many_seeds_can_show_is_said_before_they_are_trained():
    stated = figure.stated(config.compose(["experiment=resnet"]))
    line = figure.plan(stated, 3)
    assert line.startswith("3 seeds show a margin of 0.017") and line.endswith("0.0180")
    unknown = figure.stated(config.compose(["experiment=centernet"]))
    assert figure.plan(unknown, 3) is None


def test_a_checkpoint_that_does_not_answer_is_not_replaced_by_another_training(monkeypatch):
    monkeypatch.setattr(reproduce.store, "is_reachable", lambda address: False)
    cfg = config.compose(["experiment=published/coco/retinanet_r50fpn_640_72ep", "runtime=tpu"])
    with pytest.raises(UsageError, match="not verified") as error:
        reproduce._refuse_hopeless(cfg, figure.Departures())
    assert "null" not in str(error.value)


def test_absent_data_are_named_with_their_origin_and_the_command(trellis, tmp_path):
    printed = trellis(
        "reproduce",
        "experiment=published/coco/retinanet_r50fpn_640_72ep",
        f"data_dir={tmp_path}",
        code=2,
    )
    assert (
        "cocodataset.org" in printed
        and "make data DATA=coco2017" in printed
        and "dataset.root" in printed
    )


def test_data_are_built_where_they_are_not_but_for_a_published_recipe(tiny, layouts, tmp_path):
    own = [word for word in tiny["classification"] if not word.startswith("data_dir=")]
    cfg = config.compose(["experiment=resnet", *own, f"data_dir={tmp_path}"])
    assert reproduce._examples(cfg) == {"train": 24, "validation": 10}
    root = layouts["coco2017"]
    places = [f"dataset.root={root}", f"data_dir={tmp_path}"]
    cfg = config.compose(["experiment=published/coco/retinanet_r50fpn_640_72ep", *places])
    with pytest.raises(UsageError, match="not built yet") as error:
        reproduce._examples(cfg)
    assert f'make data DATA=coco2017 ARGS="dataset.root={root}"' in str(error.value)


REHEARSALS = {
    "coco/retinanet_r50fpn_640_72ep": [
        "task.init_checkpoint=null", "task.model.input_size=[128,128,3]", "task.model.backbone.resnet.model_id=10",
        "task.model.detection_generator.pre_nms_top_k=100",
    ],
    "coco/maskrcnn_r50fpn_640": [
        "task.model.input_size=[128,128,3]", "task.model.backbone.resnet.model_id=10", "task.model.detection_head.fc_dims=64",
        "task.model.roi_generator.num_proposals=50", "task.model.roi_generator.test_num_proposals=50",
        "task.model.roi_sampler.num_sampled_rois=32", "task.model.mask_sampler.num_sampled_masks=8",
        "task.model.detection_generator.pre_nms_top_k=100",
    ],
    "imagenet/resnet50_90ep": ["task.model.input_size=[64,64,3]", "task.model.backbone.resnet.model_id=10"],
    "pascal/deeplabv3plus_r101": [
        "task.init_checkpoint=null", "task.model.backbone.dilated_resnet.model_id=50", "task.train_data.output_size=[64,64]",
        "task.validation_data.output_size=[64,64]", "task.validation_data.groundtruth_padded_size=[160,160]",
    ],
    "kinetics400/slowonly_8x8": [
        "task.train_data.feature_shape=[4,32,32,3]", "task.validation_data.feature_shape=[4,32,32,3]", "task.train_data.temporal_stride=1",
        "task.validation_data.temporal_stride=1", "task.train_data.min_image_size=32", "task.validation_data.min_image_size=32",
        "task.validation_data.num_test_clips=1", "task.validation_data.num_test_crops=1",
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
    printed = trellis(
        "reproduce",
        f"experiment=published/{name}",
        *places,
        *small,
        f"runs_dir={tmp_path / 'runs'}",
        f"run_dir={run_dir}",
        code=3,
    )
    assert printed.strip().splitlines()[-1] == "rescaled"
    document = json.loads((run_dir / "reproduction.json").read_text())
    assert document["word"] == "rescaled" and document["figure"]["value"] == recipe.figure.value
    if recipe.figure.examples:
        changed = document["departures"]["changed"]
        assert any(change.startswith("examples.train") for change in changed)
