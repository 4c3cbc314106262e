"""The Model Garden configuration: built strictly, refused with advice."""

import dataclasses
from collections.abc import Sequence

import pytest

import tasks
from pipelines.config import compose
from pipelines.data.manifest import Manifest, Split
from pipelines.training import parameters
from pipelines.usage import UsageError


def built(*overrides: str, train: int = 160, validation: int = 20, labels: int = 10):
    cfg = compose(overrides)
    splits = {"train": Split(train, ()), "validation": Split(validation, ())}
    data = Manifest(
        "some",
        "f",
        cfg.dataset.task,
        1,
        ("a",) * labels,
        splits,
        formats=("png",),
        directory="somewhere",
    )
    return parameters.build(cfg, tasks.load(cfg.dataset.task), data)


def test_steps_classes_and_intervals_follow_from_the_data():
    params = built(
        "experiment=resnet", "epochs=4", "task.train_data.global_batch_size=16", labels=7
    )
    assert params.task.model.num_classes == 7
    assert params.trainer.train_steps == 40
    assert params.trainer.validation_interval == 10
    assert params.trainer.validation_steps == 1
    assert params.trainer.optimizer_config.learning_rate.cosine.decay_steps == 40
    assert params.trainer.summary_interval % params.trainer.steps_per_loop == 0


def test_a_warm_up_that_outlasts_a_training_with_a_release_is_refused():
    with pytest.raises(UsageError, match="40 of 4 steps; with frozen the warm-up has to end"):
        built("experiment=resnet", "trainer.train_steps=4", "trainer.steps_per_loop=1", "frozen=0.5", "trainer.summary_interval=1")  # fmt: skip


def test_the_background_is_a_class_of_detection():
    assert built("experiment=retinanet", labels=3).task.model.num_classes == 4


def test_steps_on_the_command_line_win_over_epochs():
    params = built(
        "experiment=resnet", "task.train_data.global_batch_size=16", "trainer.train_steps=7"
    )
    assert params.trainer.train_steps == 7
    assert params.trainer.optimizer_config.learning_rate.cosine.decay_steps == 7


def test_few_examples_under_a_recipe_for_many_are_told(capsys):
    few = built("experiment=retinanet", train=208)
    assert few.trainer.train_steps == 42
    said = parameters.few_steps(few, 208)
    assert said and said.startswith(
        "of 42 steps, 42 are the learning rate's warm-up; to learn more: epochs=39 (trainer.train_steps=507)"
    )
    short = built("experiment=retinanet", "trainer.train_steps=80")
    assert "of 80 steps, 50 are" in str(parameters.few_steps(short, 160))
    assert parameters.few_steps(built("experiment=retinanet", train=4000), 4000) is None
    # Whoever asks for the parameters of a finished run, as predict does, is not warned.
    assert "warning" not in capsys.readouterr().out


def test_png_images_are_not_read_as_jpeg():
    assert built("experiment=resnet").task.train_data.decode_jpeg_only is False


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["task.model.backbon.type=resnet"], r"task\.model\.backbon: .* did you mean backbone"),
        (
            ["trainer.train_steps=abc"],
            r"trainer\.train_steps: 'abc' is a str, Model Garden wants int",
        ),
        (["task.train_data.global_batch_size='8'"], r"global_batch_size: '8' is a str"),
        (["task.model.input_size=128"], r"task\.model\.input_size: 128 is a int"),
        (["task.model.input_size=[100,128,3]"], "not a multiple of 32.*96, 128"),
        (["task.model.backbone.type=resnett"], "did you mean .*resnet"),
        (["task.model.num_classes=5"], "num_classes: set to 5, but some has 11"),
        (["task.train_data.global_batch_size=161"], "more than the 160 training examples"),
        (["dataset=digits"], "cannot train on dataset digits, which is for classification"),
        (["garden=retinanet_resnetfpn_coc"], "did you mean retinanet_resnetfpn_coco"),
        (["imports=[no.such.module]"], "no.such.module cannot be imported"),
        (
            ["trainer.steps_per_loop=10", "trainer.summary_interval=5"],
            "summary_interval: 5 is not a multiple",
        ),
        (["trainer.train_steps=0"], "trainer.train_steps: must be at least 1"),
    ],
)
def test_what_cannot_train_is_refused_with_advice(overrides, says):
    with pytest.raises(UsageError, match=says):
        built("experiment=retinanet", *overrides)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, True), (1.5, int, False), (True, int, False), (True, bool, True), ("a", str, True), (None, int | None, True),
        (None, int, False), ([1, 2], tuple[int, int], True), ([1], tuple[int, int], False), ([1, "a"], Sequence[int], False),
        ("x", Sequence[str] | str, True), ({}, int, False),
    ],
)  # fmt: skip
def test_leaf_types_are_compared_with_the_annotation(value, hint, expected):
    assert parameters.fits(value, hint) is expected


def test_nothing_of_the_registered_experiment_is_shared_between_two_builds():
    first, second = built("experiment=resnet"), built("experiment=resnet")
    first.trainer.train_steps = 1
    assert second.trainer.train_steps != 1
    assert dataclasses.is_dataclass(first)


@pytest.mark.parametrize(
    ("overrides", "key", "expected"),
    [
        ([], "initial_learning_rate", 0.1),
        (["scale_learning_rate=64"], "initial_learning_rate", 0.1),
        (["scale_learning_rate=16"], "initial_learning_rate", 0.4),
        (
            ["scale_learning_rate=64", "task.train_data.global_batch_size=16"],
            "initial_learning_rate",
            0.025,
        ),
    ],
)
def test_learning_rates_grow_with_the_batch_where_asked(overrides, key, expected):
    rate = built("experiment=resnet", *overrides).trainer.optimizer_config.learning_rate.get()
    assert getattr(rate, key) == pytest.approx(expected)


def test_every_rate_of_a_stepwise_schedule_grows():
    stepwise = "trainer.optimizer_config.learning_rate={type: stepwise, stepwise: {boundaries: [5, 9], values: [0.1, 0.01, 0.001]}}"
    rate = built(
        "experiment=resnet", "scale_learning_rate=32", f"++{stepwise}"
    ).trainer.optimizer_config.learning_rate.get()
    assert rate.values == pytest.approx([0.2, 0.02, 0.002])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["scale_learning_rate=0"], "scale_learning_rate: 0.*at least 1"),
        (
            ["runtime.distribution_strategy=parameter_server"],
            "cannot evaluate.*RUNTIME=multi_worker",
        ),
    ],
)
def test_what_the_official_trainer_cannot_do_is_refused(overrides, says):
    with pytest.raises(UsageError, match=says):
        built("experiment=resnet", *overrides)
