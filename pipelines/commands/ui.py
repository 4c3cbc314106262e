"""Opens the MLflow UI for the store of the runs, on this machine only.    make ui    make ui ARGS=port=5001"""

import os
import socket
import sys

from pipelines import config
from pipelines.config import Config
from pipelines.outside import redacted
from pipelines.tracking import mlflow_store
from pipelines.usage import UsageError

HOST = "127.0.0.1"
PORTS = range(5000, 5100)


def run(cfg: Config) -> int:
    """Becomes the server; returns at once where the store is a server already."""
    uri = mlflow_store.address(cfg)
    if uri.startswith(("http://", "https://")):
        print(f"the runs are on a server: {redacted(uri)}")
        return 0
    port = _port(cfg.port)
    mlflow_store.create(uri)
    database = mlflow_store.sqlite_file(uri)
    artifacts = str(database.parent / "artifacts") if database else "mlartifacts"
    print(f"MLflow UI: http://{HOST}:{port}    store: {redacted(uri)}    stop: Ctrl-C", flush=True)
    # An address may carry a password, and arguments are for every user of the machine to read: it
    # goes by environment.
    os.environ.update(MLFLOW_BACKEND_STORE_URI=uri, MLFLOW_ARTIFACTS_DESTINATION=artifacts)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    arguments = f"-m mlflow ui --host {HOST} --port {port} --workers 1"
    os.execv(sys.executable, [sys.executable, *arguments.split()])


def _port(wanted: int | None) -> int:
    """The port to listen on: the one that is wanted, else the first that is free."""
    free = next((port for port in PORTS if _free(port)), None)
    another = f"make ui ARGS=port={free or 8080}"
    if wanted is None:
        if free is None:
            raise UsageError(
                f"port: none is free from {PORTS[0]} to {PORTS[-1]} on {HOST}; "
                f"name another: {another}"
            )
        return free
    if not 0 < wanted < 65536:
        raise UsageError(f"port: {wanted} is no port; name one from 1 to 65535: {another}")
    if not _free(wanted):
        raise UsageError(
            f"port: {wanted} on {HOST} cannot be had, another program may have it; "
            f"another: {another}"
        )
    return wanted


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


main = config.composed(run)
