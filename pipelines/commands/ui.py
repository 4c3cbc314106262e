"""Opens the MLflow UI for the store of the runs, on this machine only.    make ui    make ui ARGS=port=5001"""

from pipelines import config
from pipelines.config import Config
from pipelines.outside import redacted
from pipelines.system import ports, processes
from pipelines.tracking import mlflow_store


def run(cfg: Config) -> int:
    """Serves until Ctrl-C; returns at once where the store is a server already."""
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
    command, environment = processes.this_tool(
        *f"ui --host {ports.HOST} --port {port} --workers 1".split(),
        module="mlflow",
    )
    environment.pop("MLFLOW_TRACKING_URI", None)
    # Processes that evaluate language models: seconds and memory for nothing here.
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # An address may carry a password, and arguments are for every user of the machine to read: it
    # goes by environment.
    stores = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_ARTIFACTS_DESTINATION": artifacts}
    return processes.serve(command, {**environment, **stores})


main = config.composed(run)
