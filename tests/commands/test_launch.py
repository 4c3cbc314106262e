"""Several workers on this machine: real processes, one of them killed."""

import json
import re
import signal
from pathlib import Path

import psutil
import pytest

from pipelines.system.signals import Interrupted
from tests.training.test_experiment import arguments, check_run, recorded, summary

STEPS = 8
LONG = 60  # steps that take longer than a signal needs to arrive, on any machine


def launch(tiny, runs: Path, run: str, *more: str) -> list[str]:
    chosen = arguments(
        tiny, runs, "resnet", run, f"trainer.train_steps={STEPS}", "trainer.validation_interval=4"
    )
    return ["launch", "workers=2", *chosen, *more]


@pytest.fixture(scope="module")
def undisturbed(trellis, tiny, tmp_path_factory):
    """The folder of a run that two workers have trained, `run`, and what they printed."""
    runs = tmp_path_factory.mktemp("workers")
    return runs, trellis(*launch(tiny, runs, "run"))


@pytest.mark.slow
def test_two_workers_train_evaluate_and_record_one_run(undisturbed):
    runs, printed = undisturbed
    check_run(runs, "run", "accuracy", STEPS)
    described = json.loads((runs / "run" / "environment.json").read_text())["determinism_class"]
    assert (described["workers"], described["replicas"], described["threads"]["intra_op"]) == (
        2,
        2,
        max(1, psutil.cpu_count() // 2),
    )
    assert (
        re.search(rf"\[worker 0\] step {STEPS}/{STEPS} ", printed)
        and "[worker 1] step" not in printed
    )


@pytest.mark.slow
def test_only_the_chief_records(undisturbed):
    runs, _ = undisturbed
    client, entry = recorded(runs, summary(runs / "run")["mlflow_run_id"])
    found = client.search_runs([item.experiment_id for item in client.search_experiments()])
    assert [run.info.run_id for run in found] == [entry.info.run_id]
    for name in ("train/training_loss", "validation/accuracy"):
        steps = [item.step for item in client.get_metric_history(entry.info.run_id, name)]
        assert steps == sorted(set(steps))
    assert [file.parent.parent for file in (runs / "run").rglob("journal.jsonl")] == [runs / "run"]
    assert {file.name for file in (runs / "run" / "workers" / "1").iterdir()} == {
        "train.log",
        "tensorboard",
        "flight.jsonl",
    }
    assert f"step {STEPS}/{STEPS}" in (runs / "run" / "workers" / "1" / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1], ids=["chief", "other"])
def test_a_killed_worker_is_started_again_and_the_run_ends_as_if_it_had_not_been(
    trellis, tiny, undisturbed, tmp_path, victim
):
    process = trellis.start(*launch(tiny, tmp_path, "run"))
    printed = []
    for line in process.stdout:
        printed.append(line)
        if "step 3/" in line and "restart" not in "".join(printed):
            workers = sorted(
                psutil.Process(process.pid).children(), key=lambda one: one.create_time()
            )
            workers[victim].kill()
    assert process.wait() == 0, "".join(printed)
    said = "".join(printed)
    assert (
        f"worker {victim} was killed by SIGKILL" in said
        and "(restart 1 of 3)" in said
        and "restart 2" not in said
    )
    assert "another worker has gone" in said
    found = check_run(tmp_path, "run", "accuracy", STEPS)
    assert found["weights_sha256"] == summary(undisturbed[0] / "run")["weights_sha256"]
    client, _ = recorded(tmp_path, found["mlflow_run_id"])
    assert (
        len(client.search_runs([item.experiment_id for item in client.search_experiments()])) == 1
    )


@pytest.mark.slow
def test_interrupted_workers_save_the_same_step_and_go_on(trellis, tiny, tmp_path):
    intervals = (
        f"trainer.{name}={LONG}"
        for name in ("train_steps", "validation_interval", "checkpoint_interval")
    )
    process = trellis.start(*launch(tiny, tmp_path, "run", *intervals))
    for line in process.stdout:
        if "step 3/" in line:
            break
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate()
    assert process.returncode == Interrupted(signal.SIGINT).exit_code, printed
    found = summary(tmp_path / "run")
    assert (
        found["status"] == "interrupted"
        and (tmp_path / "run" / "checkpoints" / f"ckpt-{found['steps']}.index").exists()
    )
    assert f"make launch RUN={tmp_path / 'run'} ARGS=workers=2" in printed
    trellis(
        "launch",
        "workers=2",
        f"run={tmp_path / 'run'}",
        f"runs_dir={tmp_path}",
        *tiny["classification"][-1:],
    )
    check_run(tmp_path, "run", "accuracy", LONG)
