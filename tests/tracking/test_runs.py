"""Recording with the process that delivers, and finding a run again."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from pipelines import config
from pipelines.config import Config
from pipelines.system import durable
from pipelines.system.signals import Interrupted
from pipelines.tracking import delivery, journal, mlflow_store, runs, session
from pipelines.tracking.record import read_run_id, read_summary
from pipelines.tracking.recording import Recorder
from pipelines.usage import UsageError
from tests.tracking.conftest import run_id

Session = Callable[..., Recorder]

TRAIN = """
import os, sys, time
from pipelines import config
from pipelines.tracking import session
from pipelines.tracking.record import read_run_id
cfg = config.from_yaml(sys.argv[1])
with session.recorded(cfg) as report:
    report.parameters({"seed": 1})
    for step in range(1, int(sys.argv[2]) + 1):
        report(step, {"train/loss": 1 / step})
    if float(sys.argv[4]) and os.fork() == 0:  # With all files: they are let go of later than the run ends.
        time.sleep(float(sys.argv[4]))
        os._exit(0)
    while not read_run_id(cfg.run_dir):
        time.sleep(0.1)
    print("reported", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def start(
    cfg: Config, steps: int, pause_s: float = 0, outlived_s: float = 0
) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-c",
        TRAIN,
        config.to_yaml(cfg),
        str(steps),
        str(pause_s),
        str(outlived_s),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def history(cfg: Config, name: str) -> list[int]:
    client = MlflowClient(mlflow_store.address(cfg))
    return [item.step for item in client.get_metric_history(str(read_run_id(cfg.run_dir)), name)]


def status(cfg: Config) -> str:
    return (
        MlflowClient(mlflow_store.address(cfg)).get_run(str(read_run_id(cfg.run_dir))).info.status
    )


def await_status(cfg: Config, wanted: str) -> None:
    until = time.monotonic() + 300
    while status(cfg) != wanted and time.monotonic() < until:
        time.sleep(0.5)
    assert status(cfg) == wanted


def test_a_run_is_recorded_while_it_runs(cfg: Config) -> None:
    with session.recorded(cfg) as report:
        report(1, {"train/loss": 0.5})
        assert run_id(report.run_dir) is not None
        assert status(cfg) == "RUNNING" and runs.active(report.run_dir)
        report.summary.update(steps=1)
    assert status(cfg) == "FINISHED" and history(cfg, "train/loss") == [1]
    assert not runs.active(Path(cfg.run_dir)) and not runs.unsent(
        Path(cfg.run_dir), mlflow_store.address(cfg)
    )
    summary = read_summary(cfg.run_dir)
    assert summary == {
        "steps": 1,
        "status": "finished",
        "mlflow_run_id": read_run_id(cfg.run_dir),
    }


@pytest.mark.slow
def test_a_sender_started_before_is_used_and_one_without_a_run_goes_away(cfg: Config) -> None:
    early, idle = session.start_sender(cfg), session.start_sender(cfg)
    with session.recorded(cfg, sender=early) as report:
        report(1, {"train/loss": 0.5})
    assert status(cfg) == "FINISHED" and early.returncode == 0
    idle.communicate()
    assert idle.returncode == 0


def test_a_sender_that_dies_stops_nothing(cfg: Config, capfd: pytest.CaptureFixture[str]) -> None:
    sender = session.start_sender(cfg)
    sender.kill()
    sender.wait()
    with session.recorded(cfg, sender=sender) as report:
        report(1, {"train/loss": 0.5})
    assert "send it later: make sync" in capfd.readouterr().err
    assert delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg)) == []
    assert (status(cfg), history(cfg, "train/loss")) == ("FINISHED", [1])


def test_an_error_is_recorded_and_passed_on(cfg: Config) -> None:
    with pytest.raises(ZeroDivisionError), session.recorded(cfg):
        raise ZeroDivisionError("by\nzero")
    run = MlflowClient(mlflow_store.address(cfg)).get_run(str(read_run_id(cfg.run_dir)))
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "ZeroDivisionError: by zero")
    assert read_summary(cfg.run_dir)["status"] == "failed"


@pytest.mark.parametrize(
    ("error", "word"),
    [(KeyboardInterrupt(), "KILLED"), (Interrupted(signal.SIGTERM), "KILLED"), (SystemExit(143), "KILLED"),
     (SystemExit(0), "FINISHED"), (TimeoutError(), "FAILED"),
     (SystemExit(3), "FAILED"), (ValueError("x"), "FAILED")],
)  # fmt: skip
def test_how_a_run_ends_follows_from_what_ended_it(error: BaseException, word: str) -> None:
    assert session._outcome(error)[0] == word


@pytest.mark.slow
def test_four_processes_at_once_on_a_fresh_store(cfg: Config) -> None:
    (Path(cfg.runs_dir) / "mlflow.db").unlink()
    configs = [
        Config(**{**vars(cfg), "run_dir": f"{cfg.runs_dir}/tiny/{number}"}) for number in range(4)
    ]
    for process in [start(one, steps=50) for one in configs]:
        assert process.wait(timeout=300) == 0
    assert [status(one) for one in configs] == ["FINISHED"] * 4
    assert [history(one, "train/loss") for one in configs] == [list(range(1, 51))] * 4


@pytest.mark.slow
def test_a_killed_run_says_so_and_goes_on_as_the_same_run(cfg: Config) -> None:
    process = start(cfg, steps=30, pause_s=600, outlived_s=5)
    assert process.stdout is not None and process.stdout.readline().startswith("reported")
    first = read_run_id(cfg.run_dir)
    process.send_signal(signal.SIGKILL)
    process.wait()
    await_status(cfg, "KILLED")
    assert start(cfg, steps=40).wait(timeout=300) == 0
    assert read_run_id(cfg.run_dir) == first
    assert (status(cfg), history(cfg, "train/loss")) == ("FINISHED", list(range(1, 41)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_with_its_sender_nothing_is_lost_or_doubled(
    cfg: Config, seed: int
) -> None:
    moments = random.Random(seed)
    for steps, is_late in ((100, False), (200, True), (300, moments.random() < 0.5)):
        process = start(cfg, steps, pause_s=600)
        if is_late:
            assert process.stdout is not None and process.stdout.readline().startswith("reported")
        time.sleep(moments.uniform(0, 2 if is_late else 6))
        for victim in (*psutil.Process(process.pid).children(), process):
            victim.kill()
        process.wait()
    assert start(cfg, steps=400).wait(timeout=300) == 0
    assert (status(cfg), history(cfg, "train/loss")) == ("FINISHED", list(range(1, 401)))
    client = MlflowClient(mlflow_store.address(cfg))
    assert (
        len(client.search_runs([item.experiment_id for item in client.search_experiments()])) == 1
    )


def test_two_runs_in_one_directory_are_refused(cfg: Config) -> None:
    with (
        durable.locked(journal.run_lock(Path(cfg.run_dir))),
        pytest.raises(UsageError, match=f"run_dir: .* in use by process {os.getpid()}"),
        session.recorded(cfg),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("backlog", [None, 5], ids=["refuses", "hangs"])
def test_a_server_that_never_answers_stops_nothing_and_all_is_sent_later(
    cfg: Config,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    backlog: int | None,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if backlog:
            listener.listen(backlog)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listener.getsockname()[1]}")
        with session.recorded(cfg) as report:
            report(1, {"train/loss": 0.5})
            assert run_id(report.run_dir) is None
    assert f"make sync RUN={cfg.run_dir}" in capfd.readouterr().err
    assert read_summary(cfg.run_dir)["mlflow_run_id"] is None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg)) == []
    assert (status(cfg), history(cfg, "train/loss")) == ("FINISHED", [1])
    assert read_summary(cfg.run_dir)["mlflow_run_id"] == read_run_id(cfg.run_dir)


def test_importing_the_recorder_imports_neither_mlflow_nor_tensorflow() -> None:
    code = "import sys; import pipelines.tracking.runs; sys.exit(bool({'mlflow', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_run_is_found_by_directory_and_by_id(cfg: Config, write_session: Session) -> None:
    write_session(lambda recorder: recorder(1, {"a": 0.1}))
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    by_directory, by_id = (
        runs.find(cfg.run_dir, cfg),
        runs.find(read_run_id(cfg.run_dir), cfg),
    )
    assert by_directory == by_id
    assert by_id.run_dir == Path(cfg.run_dir) and by_id.metrics == {"a": {1: 0.1}}
    assert config.from_yaml(by_id.texts["config.yaml"]) == cfg


def test_a_run_whose_directory_is_gone_is_rebuilt_from_mlflow(
    cfg: Config, write_session: Session, tmp_path: Path
) -> None:
    def report(recorder: Recorder) -> None:
        recorder(1, {"AP@50": float("inf")})
        recorder.file("params.yaml", "task: {}\n")
        (recorder.run_dir / "checkpoints").mkdir()
        (recorder.run_dir / "checkpoints" / "ckpt-1.index").write_text("x")
        recorder.checkpoint("best", recorder.run_dir / "checkpoints" / "ckpt-1", 1)

    write_session(report)
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    whole = runs.find(cfg.run_dir, cfg)
    shutil.rmtree(cfg.run_dir)
    rebuilt = runs.find(str(whole.run_id), cfg)
    assert rebuilt.run_dir is None
    assert rebuilt.metrics == whole.metrics == {"AP@50": {1: float("inf")}}
    assert rebuilt.texts == whole.texts
    assert (
        runs.checkpoints(rebuilt, tmp_path / "fetched") / "best" / "ckpt-1.index"
    ).read_text() == "x"


def test_an_unknown_run_names_those_there_are(cfg: Config, write_session: Session) -> None:
    write_session()
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    known = str(read_run_id(cfg.run_dir))
    with pytest.raises(UsageError, match=f"(?s)did you mean {known}.*make ui"):
        runs.find(known[:-2] + "zz", cfg)


def test_no_run_named_says_how(cfg: Config) -> None:
    with pytest.raises(UsageError, match="run: name one"):
        runs.find(None, cfg)


def test_a_folder_as_store_is_refused(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI: ./mlruns is a folder"):
        mlflow_store.address(cfg)


def test_a_directory_that_is_gone_is_said_with_what_to_do_instead(tmp_path: Path) -> None:
    record = runs.RunRecord(tmp_path, "1f", {}, {}, "sqlite:///m.db")
    assert runs.directory(record, "1f", "x") == tmp_path
    gone = runs.RunRecord(None, "1f", {}, {}, "sqlite:///m.db")
    with pytest.raises(
        UsageError, match="^run: the directory of 1f is gone from this machine; start anew$"
    ):
        runs.directory(gone, "1f", "start anew")
