"""Where MLflow keeps the runs: a server, or an SQLite file in `runs_dir`."""

import os
from pathlib import Path

from pipelines import config
from pipelines.outside import redacted
from pipelines.system import durable
from pipelines.usage import UsageError

SQLITE = "sqlite:///"


def address(cfg: config.Config) -> str:
    """MLflow's tracking address: `MLFLOW_TRACKING_URI`, else the SQLite store in `runs_dir`.

    Raises:
        UsageError: the address is a folder.
    """
    database = Path(config.absolute(cfg.runs_dir)) / "mlflow.db"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{database}"
    if uri.startswith("file:") or (":" not in uri and uri != "databricks"):
        raise UsageError(
            f"MLFLOW_TRACKING_URI: {redacted(uri)} is a folder, which MLflow no longer takes; "
            "give a server (http://…) or a database (sqlite:///…), or unset it for the store in "
            "runs_dir"
        )
    return uri


def sqlite_file(uri: str) -> Path | None:
    """The database file of a SQLite address, None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def create(uri: str) -> None:
    """Creates the SQLite store of `uri` where it does not exist yet; a server creates its own.

    Any number of processes may call this at once: one of them creates it, under another name until
    it is whole.
    """
    database = sqlite_file(uri)
    if database is None or database.exists():
        return
    from mlflow import MlflowClient  # Takes seconds to import.

    with durable.locked(database.with_name(database.name + ".lock")):
        if database.exists():
            return
        partial = database.with_name(database.name + durable.PARTIAL)
        partial.unlink(missing_ok=True)
        MlflowClient(f"{SQLITE}{partial}").search_experiments(max_results=1)
        partial.replace(database)
