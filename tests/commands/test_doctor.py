"""The doctor finds what is wrong and says how to mend it."""

from pathlib import Path

import pytest

from pipelines.commands import doctor
from pipelines.config import Config
from pipelines.tracking import environment

LOCK = 'numpy==0.0.1 \\\n    --hash=sha256:00\nnot-here==1.0 \\\n    --hash=sha256:00\nelsewhere==1.0 ; sys_platform == "nowhere" \\\n    --hash=sha256:00\n'


def test_a_lock_is_read_as_this_machine_needs_it() -> None:
    assert doctor.locked(LOCK) == {"numpy": "0.0.1", "not-here": "1.0"}


def test_what_is_installed_is_what_is_locked() -> None:
    assert list(doctor._packages(Config())) == []


def test_packages_that_differ_from_the_lock_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements.lock").write_text(LOCK)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    [problem] = doctor._packages(Config())
    assert "not-here missing for 1.0" in problem and "make -B setup" in problem


def test_a_server_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    [problem] = doctor._store(Config(runs_dir=str(tmp_path)))
    assert problem.startswith("store: ") and "unset MLFLOW_TRACKING_URI" in problem


@pytest.mark.slow
def test_here_nothing_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(Config(data_dir=str(tmp_path), runs_dir=str(tmp_path))) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in doctor.SIX) and "CPU:0" in printed


@pytest.mark.slow
def test_absent_devices_are_named(tmp_path: Path) -> None:
    [problem] = doctor._devices(Config(runtime={"num_gpus": 8}))
    assert "8 GPUs wanted, 0 found" in problem
