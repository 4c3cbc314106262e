"""Retrieval: what MLflow holds of a run whose directory is gone."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pipelines.outside import printable, reason, redacted
from pipelines.system import durable
from pipelines.tracking import journal, mlflow_store
from pipelines.tracking.record import RunRecord, read, read_run_id
from pipelines.usage import UsageError

ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def fetch(uri: str, run_id: str, names: Sequence[str]) -> RunRecord | None:
    """The run `run_id` as its artifacts tell it, None where the store has no such run.

    Args:
        names: the texts to fetch.
    """
    database = mlflow_store.sqlite_file(uri)
    if database is not None and not database.exists():
        return None
    client = MlflowClient(uri)
    run = _run(client, run_id, uri)
    if run is None:
        return None
    run_dir = Path(run.data.tags.get("run_dir", ""))
    if journal.exists(run_dir) and read_run_id(run_dir) == run_id:
        return read(run_dir, uri)
    present = {item.path for item in client.list_artifacts(run_id)}
    texts = {}
    for name in names:
        if name in present:
            texts[name] = _text(client, run_id, name)
    figures = _from_journal(client, run_id) if journal.FOLDER in present else {}
    return RunRecord(
        run_dir=None,
        run_id=run_id,
        texts=texts,
        metrics=figures or _history(client, run_id),
        uri=uri,
    )


def state(uri: str) -> str:
    """What the store holds, in a few words.

    Raises:
        MlflowException: it does not answer, or cannot be used by this release of MLflow.
    """
    client = MlflowClient(uri)
    experiments = client.search_experiments()
    ids = [experiment.experiment_id for experiment in experiments]
    latest = client.search_runs(ids, max_results=1) if ids else []
    newest = "no runs"
    if latest:
        info = latest[0].info
        newest = f"latest run {printable(info.run_name)} ({info.status.lower()})"
    return f"{len(experiments)} experiments, {newest}"


def checkpoints(uri: str, run_id: str, destination: Path) -> Path:
    """Downloads the stored checkpoints into `destination`/checkpoints: `best/` and `last/`.

    Raises:
        UsageError: the run has none.
    """
    client = MlflowClient(uri)
    if not client.list_artifacts(run_id, "checkpoints"):
        raise UsageError(
            f"run: {run_id} has no checkpoint in MLflow, and its run directory is gone"
        )
    destination.mkdir(parents=True, exist_ok=True)
    folder = client.download_artifacts(run_id, "checkpoints", str(destination))
    return Path(folder)


def _run(client: MlflowClient, run_id: str, uri: str) -> Run | None:
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise UsageError(
            f"run: {redacted(uri)} does not answer: {reason(error)}; try: make doctor"
        ) from None


def _text(client: MlflowClient, run_id: str, name: str) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        file = client.download_artifacts(run_id, name, scratch)
        return durable.read_text(Path(file))


def _from_journal(client: MlflowClient, run_id: str) -> dict[str, dict[int, float]]:
    text = _text(client, run_id, f"{journal.FOLDER}/{journal.FILE}")
    return journal.collect(json.loads(line) for line in text.splitlines())


def _history(client: MlflowClient, run_id: str) -> dict[str, dict[int, float]]:
    """The figures of a run that did not end, and so has not left its journal."""
    figures = {}
    for name in client.get_run(run_id).data.metrics:
        history = client.get_metric_history(run_id, name)
        figures[name] = {item.step: item.value for item in history}
    return figures
