"""The UI shows the store on this machine only."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pipelines.commands import ui
from pipelines.config import compose
from pipelines.system import ports
from pipelines.usage import UsageError


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as taken:
        taken.bind((ports.HOST, 0))
        taken.listen()
        assert not ports._free(taken.getsockname()[1])


def test_a_port_that_is_in_use_is_named_with_the_command_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with socket.socket() as taken:
        taken.bind((ports.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"^port: {port} .*make ui ARGS=port=\d+$"):
            ui.run(compose([f"runs_dir={tmp_path}", f"port={port}"]))
    assert ports.port(port, "make ui ARGS=") == port
    with pytest.raises(UsageError, match="port: 70000 is no port"):
        ui.run(compose([f"runs_dir={tmp_path}", "port=70000"]))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_address_printed_answers_and_shows_the_store(tmp_path: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"
    }
    command = [sys.executable, "-m", "pipelines", "ui", f"runs_dir={tmp_path}"]
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "printed").open("w"),
        text=True,
        start_new_session=True,
        env=environment,
    )
    try:
        line = server.stdout.readline()  # type: ignore[union-attr]
        assert str(tmp_path / "mlflow.db") in line
        [address] = re.findall(r"http://127\.0\.0\.1:\d+", line)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(240):
            try:
                assert b"MLflow" in opener.open(address, timeout=5).read()
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(f"{address} does not answer")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=120)
    assert server.returncode == 0 and "Traceback" not in (tmp_path / "printed").read_text()
