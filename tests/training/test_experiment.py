"""Trainings of every task, tiny and real: trained, evaluated, recorded, resumed, interrupted, repeated."""

import json
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
import tf_keras
from official.modeling import optimization

from pipelines import outcomes
from pipelines.training import weights

SMALL = {
    "resnet": ["task.train_data.global_batch_size=8", "task.validation_data.global_batch_size=5"],
    "retinanet": ["task.model.input_size=[64,64,3]", "task.train_data.global_batch_size=4"],
    "maskrcnn": [
        "task.model.input_size=[64,64,3]",
        "task.train_data.global_batch_size=4",
        "task.train_data.parser.mask_crop_size=28",
    ],
    "movinet": [
        "task.train_data.global_batch_size=8",
        "task.validation_data.global_batch_size=5",
        "task.train_data.feature_shape=[4,32,32,3]",
        "task.validation_data.feature_shape=[4,32,32,3]",
        "task.model.dropout_rate=0.3",
    ],
    "deeplabv3plus": [
        "task.model.input_size=[64,64,3]",
        "task.train_data.output_size=[64,64]",
        "task.validation_data.output_size=[64,64]",
        "task.train_data.global_batch_size=4",
    ],
}
KINDS = {
    "resnet": "classification",
    "retinanet": "detection",
    "maskrcnn": "detection",
    "deeplabv3plus": "segmentation",
    "movinet": "video_classification",
}


def arguments(tiny, runs: Path, name: str, run: str, *more: str) -> list[str]:
    return [
        f"experiment={name}", *tiny[KINDS[name]], *SMALL[name], "trainer.train_steps=4", "trainer.steps_per_loop=1",
        "trainer.summary_interval=1", "trainer.checkpoint_interval=2", "trainer.validation_interval=4",
        "trainer.optimizer_config.warmup.linear.warmup_steps=1",
        f"runs_dir={runs}", f"run_dir={runs / run}", *more,
    ]  # fmt: skip


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def recorded(runs: Path, run_id: str):
    client = mlflow.MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    return client, client.get_run(run_id)


def check_run(runs: Path, run: str, metric: str, steps: int = 4) -> dict:
    """Everything that a finished run promises, in its directory and in MLflow."""
    found = summary(runs / run)
    assert found["status"] == "finished" and found["steps"] == steps
    assert (
        found["headline"]["metric"] == metric
        and found["headline"]["value"] == found["metrics"][metric]
    )
    assert re.fullmatch("[0-9a-f]{64}", found["weights_sha256"])
    assert set(found["seconds"]) == {"setup", "data", "train", "evaluate"}
    best = json.loads((runs / run / "checkpoints" / "best" / "info.json").read_text())
    for file, figures in ((outcomes.LAST, found["metrics"]), (outcomes.BEST, best)):
        kept = outcomes.read(runs / run / outcomes.FOLDER / file)[metric]
        assert kept.figure() == pytest.approx(figures[metric], abs=1e-6)
    for file in ("config.yaml", "params.yaml", "manifest.json", "train.log", "checkpoints/best"):
        assert (runs / run / file).exists(), file
    assert not list((runs / run).glob("tmp-*"))
    client, entry = recorded(runs, found["mlflow_run_id"])
    assert entry.info.status == "FINISHED"
    history = client.get_metric_history(entry.info.run_id, "train/training_loss")
    assert [item.step for item in history] == list(range(1, steps + 1))
    assert f"validation/{metric}" in entry.data.metrics
    assert entry.inputs.dataset_inputs[0].dataset.digest in found["fingerprint"]
    artifacts = {item.path for item in client.list_artifacts(entry.info.run_id)}
    assert {"config.yaml", "params.yaml", "manifest.json", "environment.json"} <= artifacts
    return found


def test_a_classifier_trains_once_keeps_its_seed_and_is_evaluated(trellis, tiny, tmp_path):
    printed = trellis("train", *arguments(tiny, tmp_path, "resnet", "run"))
    assert re.search(r"step 4/4 .*steps/s.*ETA.*loss", printed)
    assert "resnet: accuracy" in printed and str(tmp_path / "run") in printed
    trained = check_run(tmp_path, "run", "accuracy")
    here = [f"runs_dir={tmp_path}", *tiny["classification"][-1:]]
    trellis("train", f"run={tmp_path / 'run'}", *here)
    assert check_run(tmp_path, "run", "accuracy")["weights_sha256"] == trained["weights_sha256"]
    printed = trellis("train", *arguments(tiny, tmp_path, "resnet", "run", "seed=5"), code=2)
    assert "seed: 0 -> 5" in printed and "make train RUN=" in printed
    trellis("evaluate", f"run={trained['mlflow_run_id']}", *here)
    evaluation = summary(tmp_path / "run" / "evaluation")
    assert evaluation["headline"]["value"] == pytest.approx(trained["metrics"]["best_accuracy"])


@pytest.mark.slow
def test_clips_train_and_killed_and_resumed_end_bit_for_bit_the_same(trellis, tiny, tmp_path):
    trellis("train", *arguments(tiny, tmp_path, "movinet", "straight"))
    straight = check_run(tmp_path, "straight", "accuracy")
    process = trellis.start("train", *arguments(tiny, tmp_path, "movinet", "again"))
    for line in process.stdout:
        if line.startswith("step 3/"):
            break
    process.kill()
    process.communicate()
    printed = trellis("train", *arguments(tiny, tmp_path, "movinet", "again"))
    assert "step 3/4" in printed
    again = check_run(tmp_path, "again", "accuracy")
    assert again["weights_sha256"] == straight["weights_sha256"]
    assert again["metrics"] == straight["metrics"]
    flights = [(tmp_path / run / "flight.jsonl").read_text() for run in ("straight", "again")]
    assert flights[0] == flights[1]
    printed = trellis("predict", f"run={tmp_path / 'again'}", f"images={tmp_path}", code=2)
    assert "show a model single pictures" in printed and "make evaluate" in printed


def test_the_digest_covers_what_is_not_trained():
    inputs = tf_keras.Input([2])
    model = tf_keras.Model(inputs, tf_keras.layers.BatchNormalization()(inputs))
    official = SimpleNamespace(model=model, optimizer=tf_keras.optimizers.legacy.SGD())
    averaging = SimpleNamespace(
        model=model,
        optimizer=optimization.ExponentialMovingAverage(tf_keras.optimizers.legacy.SGD()),
    )
    averaging.optimizer.shadow_copy(model)
    trainings = (official, averaging)
    before = [weights.sha256(weights.evaluated(training)) for training in trainings]
    model.layers[1].moving_mean.assign([1.0, 2.0])
    after = [weights.sha256(weights.evaluated(training)) for training in trainings]
    assert len({*before, *after}) == 4
    averaging.optimizer._average_weights[0].assign_add([1.0, 1.0])
    assert weights.sha256(weights.evaluated(averaging)) != after[1]
    assert weights.sha256(weights.evaluated(official)) == after[0]


def test_an_interrupted_run_saves_says_how_to_go_on_and_goes_on(trellis, tiny, tmp_path):
    long = [
        *arguments(tiny, tmp_path, "resnet", "run"),
        "trainer.train_steps=60",
        "trainer.validation_interval=60",
    ]
    process = trellis.start("train", *long)
    for line in process.stdout:
        if line.startswith("step 3/"):
            break
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM, printed
    found = summary(tmp_path / "run")
    assert found["status"] == "interrupted" and found["steps"] >= 3
    assert f"make train RUN={tmp_path / 'run'}" in printed
    assert (tmp_path / "run" / "checkpoints" / f"ckpt-{found['steps']}.index").exists()
    _, entry = recorded(tmp_path, found["mlflow_run_id"])
    assert entry.info.status == "KILLED"
    assert found["steps"] < 60
    printed = trellis("train", *long)
    assert f"step {found['steps'] + 1}/60 " in printed and "step 1/60 " not in printed
    after = check_run(tmp_path, "run", "accuracy", 60)
    assert after["mlflow_run_id"] == found["mlflow_run_id"]


def test_a_loss_that_is_not_finite_stops_the_run(trellis, tiny, tmp_path):
    rate = "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=1e30"
    printed = trellis("train", *arguments(tiny, tmp_path, "resnet", "run", rate, "trainer.train_steps=20",
        "trainer.optimizer_config.warmup.linear.warmup_steps=1"), code=1)  # fmt: skip
    assert re.search(
        r"training_loss=(nan|inf) in step \d+; last good checkpoint: .*ckpt-\d+", printed
    )
    found = summary(tmp_path / "run")
    assert found["status"] == "failed" and "last good checkpoint" in found["failure"]
    assert recorded(tmp_path, found["mlflow_run_id"])[1].info.status == "FAILED"


# Parts of the way to the first step: the line after which each begins, and whether there is a record by then.
@pytest.mark.parametrize(
    ("begins", "signum", "is_recorded"),
    [
        ("data: building", signal.SIGTERM, False),
        ("data: wrote", signal.SIGINT, False),  # What follows is the import of TensorFlow.
        ("data: wrote", signal.SIGTERM, False),
        pytest.param(
            "training resnet", signal.SIGTERM, True, marks=pytest.mark.slow
        ),  # What follows is the model.
    ],
)
def test_a_signal_before_the_first_step_leaves_no_half_run(
    trellis, tiny, tmp_path, begins, signum, is_recorded
):
    command = arguments(tiny, tmp_path, "resnet", "run", f"data_dir={tmp_path / 'data'}")
    process = trellis.start("train", *command)
    for line in process.stdout:
        if line.startswith(begins):
            break
    time.sleep(0.5)
    process.send_signal(signum)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 128 + signum, printed
    assert (
        printed.splitlines()[-1].startswith(f"interrupted ({signum.name})")
        and "Traceback" not in printed
    )
    assert "call to configurable" not in printed
    assert (tmp_path / "run").exists() == is_recorded
    if is_recorded:
        assert (
            summary(tmp_path / "run")["status"] == "interrupted"
            and "before the first step" in printed
        )
        trellis("train", f"run={tmp_path / 'run'}")
        check_run(tmp_path, "run", "accuracy")
