"""Opens the MLflow UI for the store of the runs, on this machine only.    make ui    make ui ARGS=port=5001"""

import os
import sys

from pipelines import config
from pipelines.config import Config
from pipelines.outside import redacted
from pipelines.system import ports
from pipelines.tracking import mlflow_store


def run(cfg: Config) -> int:
    """Becomes the server; returns at once where the store is a server already."""
    uri = mlflow_store.address(cfg)
    if uri.startswith(("http://", "https://")):
        print(f"the runs are on a server: {redacted(uri)}")
        return 0
    port = ports.port(cfg.port, "make ui ARGS=")
    mlflow_store.create(uri)
    database = mlflow_store.sqlite_file(uri)
    artifacts = str(database.parent / "artifacts") if database else "mlartifacts"
    print(
        f"MLflow UI: http://{ports.HOST}:{port}    store: {redacted(uri)}    stop: Ctrl-C",
        flush=True,
    )
    # An address may carry a password, and arguments are for every user of the machine to read: it
    # goes by environment.
    os.environ.update(MLFLOW_BACKEND_STORE_URI=uri, MLFLOW_ARTIFACTS_DESTINATION=artifacts)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    arguments = f"-m mlflow ui --host {ports.HOST} --port {port} --workers 1"
    os.execv(sys.executable, [sys.executable, *arguments.split()])


main = config.composed(run)
