"""Sweeps as users run them: real trainings, kills, the same command again."""

import json
import os
import re
import signal
import time
from pathlib import Path

import mlflow
import psutil
import pytest


def arguments(tiny, runs: Path, *more: str) -> list[str]:
    return [
        "experiment=resnet", *tiny["classification"], "task.train_data.global_batch_size=8",
        "task.validation_data.global_batch_size=5", "trainer.train_steps=4", "trainer.steps_per_loop=2",
        "trainer.summary_interval=2", "trainer.checkpoint_interval=2", "trainer.validation_interval=4",
        f"runs_dir={runs}", f"run_dir={runs / 'sweep'}", *more,
    ]  # fmt: skip


def summary(runs: Path) -> dict:
    return json.loads((runs / "sweep" / "summary.json").read_text())


def events(runs: Path, event: str) -> list[dict]:
    path = runs / "sweep" / "ledger.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]


def recorded(
    runs: Path,
) -> tuple[mlflow.MlflowClient, mlflow.entities.Run, list[mlflow.entities.Run]]:
    """MLflow's parent run and its children."""
    client = mlflow.MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    every = client.search_runs([client.get_experiment_by_name("resnet").experiment_id])
    parents = [run for run in every if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = [
        run for run in every if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id
    ]
    assert len(children) == len(every) - 1
    return client, parents[0], children


def wait_for(condition, timeout_s: float = 900):
    until = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.2)
    return found


@pytest.mark.slow
def test_a_good_and_a_bad_trial_are_run_ranked_and_recorded(trellis, tiny, tmp_path):
    command = arguments(
        tiny, tmp_path, "trainer.optimizer_config.optimizer.type=sgd,sgdd", "jobs=2"
    )
    printed = trellis("sweep", *command, code=1)
    found = summary(tmp_path)
    good, bad = found["trials"]
    assert (good["state"], bad["state"]) == ("finished", "failed") and "sgdd" in bad["reason"]
    assert re.search(r"^failed: optimizer=sgdd: .*sgdd", printed, re.MULTILINE)
    assert found["headline"] == {"metric": "accuracy", "value": good["value"]}
    assert (
        found["best"]["command"].startswith("make train EXP=resnet")
        and found["best"]["command"] in printed
    )
    assert len(events(tmp_path, "finished")) == 1
    client, parent, children = recorded(tmp_path)
    assert {run.info.run_id for run in children} >= {good["mlflow_run_id"]} and len(children) <= 2
    assert parent.data.metrics["validation/accuracy"] == pytest.approx(good["value"])
    stored = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"ranking.csv", "ranking.png", "summary.json", "ledger.jsonl"} <= stored


@pytest.mark.slow
def test_kills_of_trials_and_of_the_sweep_lose_and_repeat_nothing(trellis, tiny, tmp_path):
    command = arguments(tiny, tmp_path, "sweep=learning_rate", "learning_rate=0.05,0.1", "seed=1,2", "jobs=2",
        "trainer.train_steps=120", "trainer.validation_interval=120", "trainer.checkpoint_interval=10")  # fmt: skip

    # A trial is killed half-way: its reason is shown, the others continue. Then the sweep is killed.
    sweep = trellis.start("sweep", *command)
    begun = wait_for(lambda: list((tmp_path / "sweep").glob("*/checkpoints/*.index")))[
        0
    ].parent.parent
    victim = next(entry for entry in events(tmp_path, "started") if entry["run_dir"] == str(begun))
    pid = int((Path(victim["run_dir"]) / "tracking" / "run.lock").read_text())
    os.kill(pid, signal.SIGKILL)
    failed = wait_for(lambda: events(tmp_path, "failed"))
    assert [entry["trial"] for entry in failed] == [victim["trial"]] and "SIGKILL" in failed[0][
        "reason"
    ]
    wait_for(lambda: events(tmp_path, "finished") and len(events(tmp_path, "started")) == 4)
    done = {entry["trial"] for entry in events(tmp_path, "finished")}
    trials = [child for child in psutil.Process(sweep.pid).children() if "train" in child.cmdline()]
    sweep.kill()
    sweep.communicate()
    assert psutil.wait_procs(trials, 300)[1] == []

    # Interrupted: the trials save, and the sweep says how to resume.
    sweep = trellis.start("sweep", *command)
    before = len(events(tmp_path, "started"))
    wait_for(lambda: len(events(tmp_path, "started")) > before)
    time.sleep(5)
    sweep.send_signal(signal.SIGINT)
    printed, _ = sweep.communicate(timeout=600)
    assert (
        sweep.returncode == 130
        and "To resume: make sweep EXP=resnet DATA=image_folder SWEEP=learning_rate" in printed
    )

    printed = trellis("sweep", *command)
    found = summary(tmp_path)
    assert [trial["state"] for trial in found["trials"]] == ["finished"] * 4 and found[
        "status"
    ] == "finished"
    for name in ("ranking.png", "ranking.csv"):
        assert (tmp_path / "sweep" / name).stat().st_size > 100
    assert len(events(tmp_path, "finished")) == 4
    client, _, children = recorded(tmp_path)
    assert len(children) == 4 and {run.info.status for run in children} == {"FINISHED"}
    for run in children:
        history = [
            item.step for item in client.get_metric_history(run.info.run_id, "train/training_loss")
        ]
        assert history == sorted(set(history)) and history[-1] == 120
        identity = next(
            trial["identity"]
            for trial in found["trials"]
            if trial["mlflow_run_id"] == run.info.run_id
        )
        if identity in done:
            assert run.data.tags["sessions"] == "1"
        if identity == victim["trial"]:
            assert int(run.data.tags["sessions"]) > 1
    started = len(events(tmp_path, "started"))
    assert "4 of them finished earlier" in trellis("sweep", *command)
    assert len(events(tmp_path, "started")) == started and len(recorded(tmp_path)[2]) == 4


@pytest.mark.slow
def test_tpe_suggests_and_every_seed_tries_each_suggestion(trellis, tiny, tmp_path):
    command = arguments(tiny, tmp_path, "sweep=tpe", "sweep.trials=2", "seed=1,2", "jobs=2")
    trellis("sweep", *command)
    found = summary(tmp_path)
    assert len(found["trials"]) == 4 and len(events(tmp_path, "suggested")) == 2
    assert {trial["settings"]["seed"] for trial in found["trials"]} == {1, 2}
