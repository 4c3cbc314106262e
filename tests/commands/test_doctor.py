"""The doctor finds what is wrong and says how to repair it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.commands import doctor, sync
from pipelines.config import Config
from pipelines.system import durable, processes
from pipelines.tracking import delivery, journal, mlflow_store, runs
from pipelines.tracking.recording import Recorder

LOCK = 'numpy==0.0.1 \\\n    --hash=sha256:00\nnot-here==1.0 \\\n    --hash=sha256:00\nelsewhere==1.0 ; sys_platform == "nowhere" \\\n    --hash=sha256:00\n'


def test_a_lock_is_read_as_this_machine_needs_it() -> None:
    assert doctor.locked(LOCK) == {"numpy": "0.0.1", "not-here": "1.0"}


def test_what_is_installed_is_what_is_locked() -> None:
    assert list(doctor._packages(Config())) == []


def test_packages_that_differ_from_the_lock_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements.lock").write_text(LOCK)
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    [problem] = doctor._packages(Config())
    assert "not-here missing for 1.0" in problem and "make -B setup" in problem


def test_a_server_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    [problem] = doctor._store(Config(runs_dir=str(tmp_path)))
    assert problem.startswith("store: ") and "unset MLFLOW_TRACKING_URI" in problem


@pytest.fixture
def cfg(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """One finished run in the default store, artifacts and all, as the process that delivers leaves it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    cfg = Config(
        name="tiny", data_dir="data", runs_dir=str(tmp_path), run_dir=str(tmp_path / "tiny" / "one")
    )
    recorder = Recorder(Path(cfg.run_dir))
    recorder.begin(cfg)
    recorder(1, {"train/loss": 0.5})
    recorder.end("FINISHED", None)
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    assert (
        len(list(tmp_path.rglob("journal.jsonl"))) == 2
    )  # The run's, and the copy among its artifacts.
    return cfg


def stored(cfg: Config) -> set[Path]:
    """Everything under the default store's artifacts."""
    return set((Path(cfg.runs_dir) / "artifacts").rglob("*"))


def test_after_a_finished_run_nothing_is_wrong_and_there_is_nothing_to_send(
    cfg: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stored(cfg)
    assert list(doctor._store(cfg)) == []
    assert "latest run one (finished)" in capsys.readouterr().out
    assert sync.run(cfg) == 0
    assert capsys.readouterr().out.startswith("nothing to send")
    assert stored(cfg) == before
    assert runs.local_runs(cfg) == [Path(cfg.run_dir)]


def test_a_run_that_goes_on_is_left_alone(cfg: Config) -> None:
    with durable.locked(journal.folder(Path(cfg.run_dir)) / "run.lock"):
        recorder = Recorder(Path(cfg.run_dir))
        recorder.begin(cfg)
        courier = delivery.Delivery(Path(cfg.run_dir), mlflow_store.address(cfg))
        with durable.locked(journal.folder(Path(cfg.run_dir)) / "sender.lock"):
            courier.advance()
            assert sync.run(cfg) == 0
            assert list(doctor._store(cfg)) == []
        assert (
            MlflowClient(mlflow_store.address(cfg)).get_run(str(courier.run_id)).info.status
            == "RUNNING"
        )


def test_a_run_that_was_not_sent_is_named(cfg: Config) -> None:
    journal.append(Path(cfg.run_dir), "tags", values={"added": "later"})
    [problem] = doctor._store(cfg)
    assert (
        problem
        == f"store: 1 runs are not wholly sent, the latest {cfg.run_dir}; send them: make sync"
    )
    assert sync.run(cfg) == 0
    assert list(doctor._store(cfg)) == []


def test_make_hands_the_runtime_to_the_doctor_and_the_port_to_the_ui() -> None:
    for target, words in (("doctor", "doctor runtime=gpu"), ("ui", "ui runtime=gpu port=5001")):
        command = [
            shutil.which("make"),
            "--dry-run",
            target,
            "RUNTIME=gpu",
            *(["ARGS=port=5001"] if target == "ui" else []),
        ]
        printed = subprocess.run(
            command, cwd=processes.ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert words in " ".join(printed.split())


@pytest.mark.slow
def test_here_nothing_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(Config(data_dir=str(tmp_path), runs_dir=str(tmp_path))) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in doctor.SIX) and "CPU:0" in printed


@pytest.mark.slow
def test_absent_devices_are_named(tmp_path: Path) -> None:
    [problem] = doctor._devices(Config(runtime={"num_gpus": 8}))
    assert "8 GPUs wanted, 0 found" in problem
