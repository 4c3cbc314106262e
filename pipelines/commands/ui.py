"""Opens the MLflow UI for the store of the runs, on this machine only.    make ui"""

import os
import socket
import sys

from pipelines.config import Config
from pipelines.tracking import runs
from pipelines.usage import UsageError

HOST = "127.0.0.1"
PORTS = range(5000, 5100)


def run(cfg: Config) -> int:
    """Becomes the server; returns at once where the store is a server already."""
    uri = runs.store(cfg)
    if uri.startswith(("http://", "https://")):
        print(f"the runs are on a server: {uri}")
        return 0
    runs.prepare(cfg)
    port = next((port for port in PORTS if _free(port)), None)
    if port is None:
        raise UsageError(f"no free port from {PORTS[0]} to {PORTS[-1]} on {HOST}; stop one of the servers there")
    database = runs.sqlite_file(uri)
    artifacts = str(database.parent / "artifacts") if database else "mlartifacts"
    print(f"MLflow UI: http://{HOST}:{port}    store: {runs.redact(uri)}    stop: Ctrl-C", flush=True)
    # By environment: an address may carry a password, and arguments are for every user of the machine to read.
    os.environ.update(MLFLOW_BACKEND_STORE_URI=uri, MLFLOW_ARTIFACTS_DESTINATION=artifacts)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, command)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
