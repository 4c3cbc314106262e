"""A real MLflow server on this machine that goes away in the middle of a run and comes back."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.config import Config
from pipelines.tracking import journal, runs, session
from pipelines.tracking.record import read_run_id, trouble
from tests.tracking.conftest import run_id

pytestmark = pytest.mark.slow


class Server:
    """An MLflow server that can be stopped and started again on the same store and port."""

    def __init__(self, folder: Path, database: Path) -> None:
        """Chooses a port; starts nothing."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
                        "--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(folder / "served")]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        environment = {
            name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"
        }
        self.process = subprocess.Popen(
            self.command,
            start_new_session=True,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(240):
            try:
                opener.open(f"{self.uri}/health", timeout=5)
                return
            except OSError:
                time.sleep(0.5)
        raise TimeoutError(self.uri)

    def stop(self) -> None:
        """Kills it with everything it has started."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server, which is the store of `cfg`."""
    served = Server(Path(cfg.runs_dir), Path(cfg.runs_dir) / "mlflow.db")
    served.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served.uri)
    yield served
    served.stop()


def test_a_server_that_dies_and_returns_has_everything_once(cfg: Config, server: Server) -> None:
    with session.recorded(cfg) as report:
        (report.run_dir / "checkpoints").mkdir()
        (report.run_dir / "checkpoints" / "ckpt-1.index").write_text("x")
        report.checkpoint("last", report.run_dir / "checkpoints" / "ckpt-1", 1)
        for step in range(1, 300):
            report(step, {"train/loss": 1 / step})
            if step == 1:
                assert run_id(report.run_dir) is not None
            if step == 100:
                server.stop()
            if step == 200:
                while trouble(report.run_dir) is None:
                    time.sleep(0.2)
                server.start()
            time.sleep(0.01)
    client = MlflowClient(server.uri)
    run = client.get_run(str(read_run_id(cfg.run_dir)))
    assert run.info.status == "FINISHED"
    assert [item.step for item in client.get_metric_history(run.info.run_id, "train/loss")] == list(
        range(1, 300)
    )
    assert client.download_artifacts(run.info.run_id, "checkpoints/last/ckpt-1.index")
    assert trouble(Path(cfg.run_dir)) is None


def test_a_server_gone_for_good_is_told_by_sync(cfg: Config, server: Server) -> None:
    with session.recorded(cfg) as report:
        report(1, {"train/loss": 0.5})
        assert run_id(report.run_dir) is not None
        server.stop()
        report(2, {"train/loss": 0.25})
    sync = [
        sys.executable,
        "-m",
        "pipelines",
        "sync",
        f"run={cfg.run_dir}",
        f"runs_dir={cfg.runs_dir}",
    ]
    refused = subprocess.run(sync, capture_output=True, text=True)
    assert refused.returncode == 2 and "nothing is lost" in refused.stderr
    server.start()
    assert subprocess.run(sync).returncode == 0
    assert not runs.unsent(Path(cfg.run_dir), server.uri)
    history = MlflowClient(server.uri).get_metric_history(
        str(read_run_id(cfg.run_dir)), "train/loss"
    )
    assert (
        [item.step for item in history]
        == sorted(journal.metrics(Path(cfg.run_dir))["train/loss"])
        == [1, 2]
    )
