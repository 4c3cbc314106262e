"""Retrieval: what MLflow holds of a run whose directory is gone."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines.outside import printable, reason, redacted
from pipelines.system import durable
from pipelines.tracking import journal, recording, runs
from pipelines.usage import UsageError


def fetch(uri: str, run_id: str, names: Sequence[str]) -> runs.RunRecord | None:
    """The run `run_id` as its artifacts tell it, None where the store has no such run."""
    database = runs.sqlite_file(uri)
    if database is not None and not database.exists():
        return None
    client = MlflowClient(uri)
    try:
        stored = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise UsageError(
                f"run: {redacted(uri)} does not answer: {reason(error)}; try: make doctor"
            ) from None
        return None
    run_dir = Path(stored.data.tags.get("run_dir", ""))
    if runs.is_run(run_dir) and recording.read_run_id(run_dir) == run_id:
        return runs.read(run_dir, uri)
    present = {item.path for item in client.list_artifacts(run_id)}
    with tempfile.TemporaryDirectory() as scratch:
        texts = {name: _text(client, run_id, name, scratch) for name in names if name in present}
        lines = (
            _text(client, run_id, f"{journal.FOLDER}/journal.jsonl", scratch)
            if journal.FOLDER in present
            else ""
        )
    figures = journal.collect(json.loads(line) for line in lines.splitlines())
    return runs.RunRecord(None, run_id, texts, figures or _history(client, run_id), uri)


def state(uri: str) -> str:
    """What the store holds, in a few words.

    Raises:
        MlflowException: it does not answer, or cannot be used by this release of MLflow.
    """
    client = MlflowClient(uri)
    experiments = client.search_experiments()
    latest = (
        client.search_runs([item.experiment_id for item in experiments], max_results=1)
        if experiments
        else []
    )
    newest = (
        f"latest run {printable(latest[0].info.run_name)} ({latest[0].info.status.lower()})"
        if latest
        else "no runs"
    )
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
    return Path(client.download_artifacts(run_id, "checkpoints", str(destination)))


def _text(client: MlflowClient, run_id: str, name: str, scratch: str) -> str:
    return durable.read_text(Path(client.download_artifacts(run_id, name, scratch)))


def _history(client: MlflowClient, run_id: str) -> dict[str, dict[int, float]]:
    """The figures of a run that did not end, and so has not left its journal."""
    names = client.get_run(run_id).data.metrics
    return {
        name: {item.step: item.value for item in client.get_metric_history(run_id, name)}
        for name in names
    }
