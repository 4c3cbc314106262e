"""Devices that are not there are refused with what was looked for; those that are there share the work."""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from pipelines.config import compose
from pipelines.training import parameters, strategy, workers
from pipelines.usage import UsageError
from tests.training.test_experiment import arguments, check_run, summary

MIRRORED = ["runtime=mirrored", "logical_cpus=2", "task.validation_data.global_batch_size=6"]


@pytest.mark.parametrize(
    ("runtime", "says"),
    [
        ("gpu", "1 GPU asked for"),
        ("mirrored", "all GPUs asked for"),
        ("tpu", "distribution_strategy=tpu"),
    ],
)
def test_a_missing_device_is_named(runtime, says):
    params = parameters.build(compose(["experiment=resnet", f"runtime={runtime}"]))
    with pytest.raises(UsageError, match=says):
        strategy.build(params.runtime)


@pytest.mark.parametrize(("runtime", "number"), [("cpu", 2), ("mirrored", 1)])
def test_only_mirrored_splits_the_cpu(runtime, number):
    params = parameters.build(compose(["experiment=resnet", f"runtime={runtime}"]))
    with pytest.raises(
        UsageError, match=f"logical_cpus={number}: two or more, and with runtime=mirrored"
    ):
        strategy.build(params.runtime, number)


@pytest.mark.parametrize(
    ("node", "batch", "replicas", "says"),
    [
        ("train_data", 5, 2, "5 cannot be shared by 2 replicas; set it to 4 or 6"),
        ("train_data", 1, 2, "set it to 2$"),
        (
            "validation_data",
            4,
            2,
            "4 cannot be shared by 2 replicas on 10 examples.*set it to 2 or 6",
        ),
        ("validation_data", 8, 4, "set it to 12$"),
        ("validation_data", 7, 7, "no size fits; use fewer devices"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused_with_those_that_can(node, batch, replicas, says):
    params = parameters.build(compose(["experiment=resnet"]))
    params.task.train_data.global_batch_size = params.task.validation_data.global_batch_size = 840
    params.trainer.validation_steps = 10
    getattr(params.task, node).global_batch_size = batch
    devices = SimpleNamespace(
        num_replicas_in_sync=replicas, extended=SimpleNamespace(worker_devices=("CPU",) * replicas)
    )
    with pytest.raises(UsageError, match=rf"{node}.global_batch_size: .*{says}"):
        strategy.refuse_uneven(params, devices, examples=10)


@pytest.mark.parametrize(("training", "pipelines", "replicas"), [(True, 3, 6), (False, 1, 1)])
def test_every_worker_evaluates_all_of_the_validation_data(training, pipelines, replicas):
    task = SimpleNamespace(build_inputs=lambda params, input_context=None: input_context)
    workers.whole_validation(task, tf.distribute.OneDeviceStrategy("CPU:0"))
    given = tf.distribute.InputContext(
        num_input_pipelines=3, input_pipeline_id=2, num_replicas_in_sync=6
    )
    seen = task.build_inputs(SimpleNamespace(is_training=training), input_context=given)
    assert (seen.num_input_pipelines, seen.num_replicas_in_sync) == (pipelines, replicas)


def test_a_worker_starts_from_what_the_chief_goes_on_from(tmp_path):
    chief, own = tmp_path / "chief", tmp_path / "own"
    step = tf.Variable(0)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(step=step), str(chief), max_to_keep=3)
    workers.follow(chief, own)
    assert tf.train.latest_checkpoint(str(own)) is None
    for number in (3, 7):
        step.assign(number)
        manager.save(number)
    (chief / "best").mkdir()
    (chief / "best" / "info.json").write_text("{}")
    (own / "ckpt-9.index").write_text("of an earlier start")
    workers.follow(chief, own)
    assert {file.name.partition(".")[0] for file in own.iterdir()} == {
        "checkpoint",
        "ckpt-7",
        "best",
    }
    restored = tf.Variable(0)
    tf.train.Checkpoint(step=restored).restore(
        tf.train.latest_checkpoint(str(own))
    ).assert_consumed()
    assert restored.numpy() == 7 and (own / "best" / "info.json").exists()


def test_two_devices_train_and_evaluate_together(trellis, tiny, tmp_path):
    trellis("train", *arguments(tiny, tmp_path, "resnet", "run", *MIRRORED))
    check_run(tmp_path, "run", "accuracy")
    described = (tmp_path / "run" / "environment.json").read_text()
    assert '"replicas": 2' in described and '"strategy": "mirrored"' in described


@pytest.mark.slow
def test_two_devices_resume_and_take_one_anothers_checkpoints(trellis, tiny, tmp_path):
    command = [
        *arguments(tiny, tmp_path, "resnet", "run", *MIRRORED),
        "trainer.validation_interval=2",
    ]
    process = trellis.start("train", *command)
    for line in process.stdout:
        if line.startswith("step 3/"):
            break
    process.kill()
    process.communicate()
    one_device = [text for text in command if text not in MIRRORED]
    assert "distribution_strategy: mirrored -> one_device" in trellis("train", *one_device, code=2)
    trellis("train", *command)
    found = check_run(tmp_path, "run", "accuracy")
    trellis(
        "evaluate", f"run={tmp_path / 'run'}", f"runs_dir={tmp_path}", *tiny["classification"][-1:]
    )
    evaluation = summary(tmp_path / "run" / "evaluation")
    assert set(evaluation["metrics"]) <= set(found["metrics"])
