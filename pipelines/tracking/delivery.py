"""Delivery: brings MLflow up to date with a run's journal, from where the last delivery stopped.

Every step may be repeated without effect, so that a delivery broken off at any point is mended by the next.
"""

import json
import os
import posixpath
import re
import zlib
from collections.abc import Mapping
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
from pipelines.tracking import journal, recording, runs

IDENTITY = "journal"  # tag: which journal a run was made from
BATCH = 1000  # MLflow's limit for metrics; parameters and tags together: 100
REFUSALS = (
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
)  # trying again would not help


def prepare(uri: str) -> None:
    """Creates the SQLite store of `uri`, once among any number of processes; a server looks after its own."""
    database = runs.sqlite_file(uri)
    if database is None or database.exists():
        return
    with durable.locked(database.with_name(database.name + ".lock")):
        if not database.exists():
            partial = database.with_name(database.name + durable.PARTIAL)
            partial.unlink(missing_ok=True)
            MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
            partial.replace(database)  # Whole before it has its name: what exists can be used.


class Delivery:
    """One run's way from its journal into one store."""

    def __init__(self, run_dir: Path, uri: str) -> None:
        """Takes up where the last delivery to `uri` stopped."""
        self.run_dir = run_dir
        self.uri = uri
        self.client = MlflowClient(uri)
        self.key = redacted(uri)
        path = journal.folder(run_dir) / "sent.json"
        self.state: dict[str, Any] = (
            json.loads(path.read_text()) if path.exists() else {"stores": {}}
        )
        sent = self.state["stores"].get(self.key, {})
        self.run_id: str | None = sent.get("run_id")
        self.offset: int = sent.get("offset", 0)
        self.refused: list[str] = []
        self._checked = False

    def advance(self) -> bool:
        """Delivers all that is new; says whether the journal's last event was delivered and is a `close`."""
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
                self._attempt(event)
                closed = event["event"] == "close"
                self._save(after)
            if len(figures) >= BATCH:
                self._send_figures(figures, after)
                figures = []
            reached = after
        self._send_figures(figures, reached)
        return closed

    def _send_figures(self, figures: list[Metric], reached: int) -> None:
        for start in range(0, len(figures), BATCH):
            self._send_batch(figures[start : start + BATCH])
        if reached > self.offset:
            self._save(reached)

    def _send_batch(self, figures: list[Metric]) -> None:
        """Sends figures at once; where MLflow refuses them, by halves, until those that it refuses stand alone."""
        try:
            self.client.log_batch(self._run(), metrics=figures)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            if self._revived():
                self._send_batch(figures)
            elif len(figures) == 1:
                self._refuse(f"{figures[0].key} of step {figures[0].step}", error)
            else:
                half = len(figures) // 2
                self._send_batch(figures[:half])
                self._send_batch(figures[half:])

    def _attempt(self, event: dict[str, Any]) -> None:
        """Sends; what MLflow will never take is noted and passed over, so that it does not hold up the rest."""
        try:
            getattr(self, "_send_" + event["event"])(event)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            if self._revived():
                self._attempt(event)
            else:
                self._refuse(event["event"], error)

    def _refuse(self, what: str, error: MlflowException) -> None:
        self.refused.append(f"{printable(what)}: {reason(error)}")

    def _revived(self) -> bool:
        """Whether the run has been deleted meanwhile, which MLflow words as a refusal; it is then restored."""
        if (
            self.run_id is None
            or self.client.get_run(self.run_id).info.lifecycle_stage != "deleted"
        ):
            return False
        self.client.restore_run(self.run_id)
        return True

    def _check(self) -> None:
        """Sees once that the store still has the run and lets it be written; one that is gone is delivered anew."""
        if self._checked:
            return
        try:
            if self.run_id and self.client.get_run(self.run_id).info.lifecycle_stage == "deleted":
                self.client.restore_run(self.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.run_id, self.offset = None, 0
        self._checked = True

    def _run(self) -> str:
        if self.run_id is None:
            raise ValueError(f"the journal in {self.run_dir} does not begin with an open event")
        return self.run_id

    def _send_open(self, event: dict[str, Any]) -> None:
        if self.run_id is None:
            self.run_id = self._existing(event) or self._create(event)
            durable.write_whole(self.run_dir / recording.RUN_ID, self.run_id + "\n")
        self.client.update_run(self._run(), status="RUNNING")

    def _existing(self, event: dict[str, Any]) -> str | None:
        """The run that a delivery killed just after creating it left behind."""
        experiment = self.client.get_experiment_by_name(event["experiment"])
        if experiment is None:
            return None
        found = self.client.search_runs(
            [experiment.experiment_id], f"tags.{IDENTITY} = '{event['identity']}'"
        )
        return found[0].info.run_id if found else None

    def _create(self, event: dict[str, Any]) -> str:
        tags = {
            IDENTITY: event["identity"],
            MLFLOW_USER: psutil.Process().username(),
            MLFLOW_SOURCE_NAME: "trellis",
            MLFLOW_GIT_COMMIT: event["commit"],
            MLFLOW_GIT_BRANCH: event["branch"],
            MLFLOW_PARENT_RUN_ID: _parent(event["parent"]),
        }
        known = {name: value for name, value in tags.items() if value}
        experiment = self._experiment(event["experiment"])
        return self.client.create_run(experiment, event["time"], known, event["name"]).info.run_id

    def _experiment(self, name: str) -> str:
        database = runs.sqlite_file(self.uri)
        folder = (database.parent / "artifacts" / name).as_uri() if database else None
        if self.client.get_experiment_by_name(name) is None:
            try:
                return self.client.create_experiment(name, folder)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # Another process was first.
                    raise
        found = self.client.get_experiment_by_name(name)
        assert found is not None
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def _send_parameters(self, event: dict[str, Any]) -> None:
        entries = [
            Param(clean(name), _short(value, 500)) for name, value in event["values"].items()
        ]
        for start in range(0, len(entries), 100):
            self.client.log_batch(self._run(), params=entries[start : start + 100])

    def _send_tags(self, event: dict[str, Any]) -> None:
        entries = [
            RunTag(clean(name), _short(value, 5000)) for name, value in event["values"].items()
        ]
        self.client.log_batch(self._run(), tags=entries)

    def _send_dataset(self, event: dict[str, Any]) -> None:
        context = InputTag(MLFLOW_DATASET_CONTEXT, "training")
        self.client.log_inputs(self._run(), [DatasetInput(_records(event), [context])])

    def _send_file(self, event: dict[str, Any]) -> None:
        path = self.run_dir / event["path"]
        if not path.exists():
            self.refused.append(f"file: {event['path']} is no longer there")
            return
        if event["path"] == recording.SUMMARY and not recording.read_summary(self.run_dir).get(
            "mlflow_run_id"
        ):
            recording.write_summary(
                self.run_dir, {**recording.read_summary(self.run_dir), "mlflow_run_id": self.run_id}
            )
        folder = os.path.dirname(event["path"])
        self.client.log_artifact(self._run(), str(path), folder or None)

    def _send_close(self, event: dict[str, Any]) -> None:
        run_id = self._run()
        for which, checkpoint in event["checkpoints"].items():
            self._send_checkpoint(which, checkpoint)
        self.client.log_artifact(
            run_id, str(journal.folder(self.run_dir) / "journal.jsonl"), journal.FOLDER
        )
        if event["failure"]:
            self.client.set_tag(run_id, "failure", _short(event["failure"], 500))
        elif "failure" in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, "failure")
        self.client.set_tag(run_id, "status", recording.STATUS[event["status"]])
        self.client.set_terminated(run_id, event["status"], event["time"])

    def _send_checkpoint(self, which: str, checkpoint: Mapping[str, Any]) -> None:
        prefix = self.run_dir / checkpoint["path"]
        files = (
            sorted(prefix.parent.glob(prefix.name + ".*"))
            if not prefix.is_dir()
            else sorted(prefix.iterdir())
        )
        if not files:
            self.refused.append(f"checkpoint: {checkpoint['path']} is no longer there")
            return
        folder = f"checkpoints/{which}"
        stored = {Path(item.path).name for item in self.client.list_artifacts(self._run(), folder)}
        if stored and stored != {file.name for file in files} | {
            "checkpoint.json"
        }:  # An earlier session's.
            get_artifact_repository(
                self.client.get_run(self._run()).info.artifact_uri
            ).delete_artifacts(folder)
        for file in files:
            self.client.log_artifact(self._run(), str(file), folder)
        self.client.log_dict(self._run(), dict(checkpoint), f"{folder}/checkpoint.json")
        self.client.set_tag(self._run(), f"checkpoint_{which}_step", checkpoint["step"])

    def _save(self, offset: int) -> None:
        self.offset = offset
        self.state["stores"][self.key] = {"run_id": self.run_id, "offset": offset}
        durable.write_whole(
            journal.folder(self.run_dir) / "sent.json", json.dumps(self.state, indent=1) + "\n"
        )


def deliver(run_dir: Path, uri: str) -> list[str]:
    """Delivers all that the store at `uri` has not been told about the run in `run_dir`; returns what it refuses to take.

    Raises:
        BlockingIOError: the run is still being recorded, and its own process delivers.
        MlflowException: the store does not answer.
    """
    with durable.locked(journal.folder(run_dir) / "sender.lock", wait=False):
        journal.close_abandoned(run_dir)
        prepare(uri)
        delivery = Delivery(run_dir, uri)
        delivery.advance()
        report_trouble(run_dir, None)
        return delivery.refused


def report_trouble(run_dir: Path, trouble: str | None) -> None:
    """Leaves word for the process that trains why MLflow cannot be told the latest."""
    path = journal.folder(run_dir) / "trouble"
    if trouble is None:
        path.unlink(missing_ok=True)
    else:
        durable.write_whole(path, trouble)


def clean(name: str) -> str:
    """A name as MLflow accepts it; a changed one ends in a digest of the original, so that no two become one."""
    parts = [re.sub(r"[^\w.\- :]", "_", part) for part in name.split("/")]
    cleaned = posixpath.normpath("/".join(part for part in parts if part.strip(".")))[:240]
    return cleaned if cleaned == name else f"{cleaned}-{zlib.crc32(name.encode()):08x}"


def _figures(event: Mapping[str, Any]) -> list[Metric]:
    return [
        Metric(clean(name), float(value), event["time"], event["step"])
        for name, value in event["values"].items()
    ]


def _records(event: Mapping[str, Any]) -> Dataset:
    """The data of a run as MLflow shows it: name, digest, where it lies, and the manifest's counts as profile."""
    scheme, separator, _ = event["source"].partition("://")
    return Dataset(
        name=event["name"],
        digest=event["fingerprint"][
            :36
        ],  # MLflow takes no more; the whole is in the profile and a tag.
        source_type=scheme if separator else "local",
        source=json.dumps({"uri": event["source"]}),
        profile=json.dumps({"fingerprint": event["fingerprint"], **event["profile"]}),
    )


def _parent(parent: str | None) -> str | None:
    """The parent's run id, where a run directory is given: the one MLflow gave it."""
    if parent is None or not runs.is_run(Path(parent)):
        return parent
    found = recording.read_run_id(parent)
    if found is None:
        raise MlflowException(
            f"the parent run in {parent} is not in MLflow yet; send it first: trellis sync run={parent}"
        )
    return found


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 12] + " … (cut off)"
