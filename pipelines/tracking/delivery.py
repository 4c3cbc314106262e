"""Delivery: brings MLflow up to date with a run's journal, from where the last delivery stopped.

Every step may be repeated without effect, so that the next delivery completes one that was broken
off at any point.
"""

import json
import os
import posixpath
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_BRANCH,
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_SOURCE_NAME,
    MLFLOW_USER,
)

from pipelines.outside import printable, reason, redacted
from pipelines.system import durable
from pipelines.tracking import journal, mlflow_store, record

IDENTITY = "journal"  # tag: which journal a run was made from
MOST_FIGURES = 1000  # MLflow's limits for a batch, and for names and texts
MOST_PARAMETERS = 100
PARAMETER_LENGTH = 500
TAG_LENGTH = 5000
NAME_LENGTH = 240
DIGEST_LENGTH = 36
REFUSALS = (  # Trying again would not help.
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
)

Event = Mapping[str, Any]


class Delivery:
    """One run's way from its journal into one store."""

    def __init__(self, run_dir: Path, uri: str) -> None:
        """Takes up where the last delivery to `uri` stopped."""
        self.run_dir = run_dir
        self.uri = uri
        self.client = MlflowClient(uri)
        self.stores = record.read_sent(run_dir)
        sent = self.stores.get(redacted(uri), {})
        self.run_id: str | None = sent.get("run_id")
        self.offset: int = sent.get("offset", 0)
        self.refused: list[str] = []
        self._checked = False
        self._senders: dict[str, Callable[[Event], None]] = {
            "open": self._open,
            "parameters": self._parameters,
            "tags": self._tags,
            "dataset": self._dataset,
            "file": self._file,
            "close": self._close,
        }

    def advance(self) -> bool:
        """Delivers all that is new.

        Returns:
            Whether the journal's last event was delivered and is a `close`.
        """
        self._check()
        closed = False
        figures: list[Metric] = []
        reached = self.offset
        for event, after in journal.read(self.run_dir, self.offset):
            if event["event"] == "metrics":
                figures += _figures(event)
                closed = False
            else:
                self._send_figures(figures, reached)
                figures = []
                self._send(event)
                closed = event["event"] == "close"
                self._save(after)
            if len(figures) >= MOST_FIGURES:
                self._send_figures(figures, after)
                figures = []
            reached = after
        self._send_figures(figures, reached)
        return closed

    def _send_figures(self, figures: list[Metric], reached: int) -> None:
        for batch in _batches(figures, MOST_FIGURES):
            self._send_batch(batch)
        if reached > self.offset:
            self._save(reached)

    def _send_batch(self, figures: Sequence[Metric]) -> None:
        """Sends figures at once; where MLflow refuses, by halves, until those refused stand alone."""
        try:
            self.client.log_batch(self._run(), metrics=figures)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            if self._revived():
                self._send_batch(figures)
            elif len(figures) == 1:
                [figure] = figures
                self._refuse(f"{figure.key} of step {figure.step}", error)
            else:
                half = len(figures) // 2
                self._send_batch(figures[:half])
                self._send_batch(figures[half:])

    def _send(self, event: Event) -> None:
        """Sends an event; notes and passes over what MLflow will never take: the rest must follow."""
        try:
            self._senders[event["event"]](event)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            if self._revived():
                self._send(event)
            else:
                self._refuse(event["event"], error)

    def _refuse(self, what: str, error: MlflowException) -> None:
        self.refused.append(f"{printable(what)}: {reason(error)}")

    def _revived(self) -> bool:
        """Whether the run was deleted meanwhile, which MLflow words as a refusal; it is restored."""
        if self.run_id is None:
            return False
        if self.client.get_run(self.run_id).info.lifecycle_stage != "deleted":
            return False
        self.client.restore_run(self.run_id)
        return True

    def _check(self) -> None:
        """Makes sure once that the store has the run and lets it be written.

        A run that is gone is delivered anew.
        """
        if self._checked:
            return
        try:
            self._revived()
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.run_id = None
            self.offset = 0
        self._checked = True

    def _run(self) -> str:
        if self.run_id is None:
            raise ValueError(f"the journal in {self.run_dir} does not begin with an open event")
        return self.run_id

    def _open(self, event: Event) -> None:
        if self.run_id is None:
            self.run_id = self._existing(event) or self._create(event)
            record.write_run_id(self.run_dir, self.run_id)
        self.client.update_run(self.run_id, status="RUNNING")

    def _existing(self, event: Event) -> str | None:
        """The run that a delivery killed just after creating it left behind."""
        experiment = self.client.get_experiment_by_name(event["experiment"])
        if experiment is None:
            return None
        same_journal = f"tags.{IDENTITY} = '{event['identity']}'"
        runs = self.client.search_runs([experiment.experiment_id], same_journal)
        return runs[0].info.run_id if runs else None

    def _create(self, event: Event) -> str:
        tags = {
            IDENTITY: event["identity"],
            MLFLOW_USER: psutil.Process().username(),
            MLFLOW_SOURCE_NAME: "trellis",
            MLFLOW_GIT_COMMIT: event["commit"],
            MLFLOW_GIT_BRANCH: event["branch"],
            MLFLOW_PARENT_RUN_ID: _parent(event["parent"]),
        }
        run = self.client.create_run(
            self._experiment(event["experiment"]),
            event["time"],
            {name: value for name, value in tags.items() if value},
            event["name"],
        )
        return run.info.run_id

    def _experiment(self, name: str) -> str:
        """The id of an experiment, created or restored where need be."""
        if self.client.get_experiment_by_name(name) is None:
            try:
                return self.client.create_experiment(name, self._artifacts(name))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # Another process was first.
                    raise
        experiment = self.client.get_experiment_by_name(name)
        assert experiment is not None
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        return experiment.experiment_id

    def _artifacts(self, experiment: str) -> str | None:
        """Where artifacts of an experiment go: beside an SQLite file; a server decides itself."""
        database = mlflow_store.sqlite_file(self.uri)
        return (database.parent / "artifacts" / experiment).as_uri() if database else None

    def _parameters(self, event: Event) -> None:
        parameters = []
        for name, value in event["values"].items():
            parameters.append(Param(clean(name), _short(value, PARAMETER_LENGTH)))
        for batch in _batches(parameters, MOST_PARAMETERS):
            self.client.log_batch(self._run(), params=batch)

    def _tags(self, event: Event) -> None:
        tags = []
        for name, value in event["values"].items():
            tags.append(RunTag(clean(name), _short(value, TAG_LENGTH)))
        self.client.log_batch(self._run(), tags=tags)

    def _dataset(self, event: Event) -> None:
        context = InputTag(MLFLOW_DATASET_CONTEXT, "training")
        learned_from = DatasetInput(_data(event), [context])
        self.client.log_inputs(self._run(), [learned_from])

    def _file(self, event: Event) -> None:
        path = self.run_dir / event["path"]
        if not path.exists():
            self.refused.append(f"file: {event['path']} is no longer there")
            return
        if event["path"] == record.SUMMARY:
            self._complete_summary()
        folder = os.path.dirname(event["path"])
        self.client.log_artifact(self._run(), str(path), folder or None)

    def _complete_summary(self) -> None:
        """Writes the run's id into its summary, which may have been written before it had one."""
        summary = record.read_summary(self.run_dir)
        if not summary.get("mlflow_run_id"):
            record.write_summary(self.run_dir, {**summary, "mlflow_run_id": self.run_id})

    def _close(self, event: Event) -> None:
        run_id = self._run()
        for which, checkpoint in event["checkpoints"].items():
            self._checkpoint(which, checkpoint)
        lines = journal.folder(self.run_dir) / journal.FILE
        self.client.log_artifact(run_id, str(lines), journal.FOLDER)
        if event["failure"]:
            self.client.set_tag(run_id, "failure", _short(event["failure"], PARAMETER_LENGTH))
        elif "failure" in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, "failure")
        self.client.set_tag(run_id, "status", record.STATUS[event["status"]])
        self.client.set_terminated(run_id, event["status"], event["time"])

    def _checkpoint(self, which: str, checkpoint: Mapping[str, Any]) -> None:
        files = _files(self.run_dir / checkpoint["path"])
        if not files:
            self.refused.append(f"checkpoint: {checkpoint['path']} is no longer there")
            return
        run_id = self._run()
        folder = f"checkpoints/{which}"
        self._make_room(folder, {"checkpoint.json", *(file.name for file in files)})
        for file in files:
            self.client.log_artifact(run_id, str(file), folder)
        self.client.log_dict(run_id, dict(checkpoint), f"{folder}/checkpoint.json")
        self.client.set_tag(run_id, f"checkpoint_{which}_step", checkpoint["step"])

    def _make_room(self, folder: str, names: set[str]) -> None:
        """Deletes what an earlier session has stored in a folder that is to hold `names`."""
        artifacts = self.client.list_artifacts(self._run(), folder)
        stored = {Path(item.path).name for item in artifacts}
        if stored and stored != names:
            location = self.client.get_run(self._run()).info.artifact_uri
            get_artifact_repository(location).delete_artifacts(folder)

    def _save(self, offset: int) -> None:
        self.offset = offset
        self.stores[redacted(self.uri)] = {"run_id": self.run_id, "offset": offset}
        record.write_sent(self.run_dir, self.stores)


def deliver(run_dir: Path, uri: str) -> list[str]:
    """Delivers all that the store at `uri` has not been told about the run in `run_dir`.

    Returns:
        What the store refuses to take.

    Raises:
        BlockingIOError: the run is still being recorded, and its own process delivers.
        MlflowException: the store does not answer.
    """
    with durable.locked(journal.sender_lock(run_dir), wait=False):
        journal.close_abandoned(run_dir)
        mlflow_store.create(uri)
        delivery = Delivery(run_dir, uri)
        delivery.advance()
        record.report_trouble(run_dir, None)
        return delivery.refused


def clean(name: str) -> str:
    """A name as MLflow accepts it.

    A changed one ends in a digest of the original, so that no two become one.
    """
    parts = [re.sub(r"[^\w.\- :]", "_", part) for part in name.split("/")]
    path = "/".join(part for part in parts if part.strip("."))
    cleaned = posixpath.normpath(path)[:NAME_LENGTH]
    if cleaned == name:
        return name
    digest = zlib.crc32(name.encode())
    return f"{cleaned}-{digest:08x}"


def _batches(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _figures(event: Event) -> list[Metric]:
    figures = []
    for name, value in event["values"].items():
        figure = Metric(
            key=clean(name),
            value=float(value),
            timestamp=event["time"],
            step=event["step"],
        )
        figures.append(figure)
    return figures


def _data(event: Event) -> Dataset:
    """The data of a run as MLflow shows it: name, digest, location, the manifest as profile."""
    scheme, separator, _ = event["source"].partition("://")
    profile = {"fingerprint": event["fingerprint"], **event["profile"]}
    return Dataset(
        name=event["name"],
        digest=event["fingerprint"][:DIGEST_LENGTH],  # The whole is in the profile and a tag.
        source_type=scheme if separator else "local",
        source=json.dumps({"uri": event["source"]}),
        profile=json.dumps(profile),
    )


def _files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint: those in its directory, or those that its prefix begins."""
    if checkpoint.is_dir():
        return sorted(checkpoint.iterdir())
    return sorted(checkpoint.parent.glob(checkpoint.name + ".*"))


def _parent(parent: str | None) -> str | None:
    """The parent's run id; where a run directory is named, the id that MLflow gave it."""
    if parent is None or not journal.exists(Path(parent)):
        return parent
    run_id = record.read_run_id(parent)
    if run_id is None:
        raise MlflowException(
            f"the parent run in {parent} is not in MLflow yet; "
            f"send it first: make sync RUN={parent}"
        )
    return run_id


def _short(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    ending = " … (cut off)"
    return text[: limit - len(ending)] + ending
