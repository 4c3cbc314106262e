"""The recorder of one run: everything lands in its run directory first, as files and as events."""

import json
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines import config
from pipelines.outside import without_secrets
from pipelines.system import durable
from pipelines.tracking import environment, journal
from pipelines.tracking.record import STATUS, SUMMARY, read_run_id, read_summary, write_summary


class Recorder:
    """Records one run: call it with a step and its figures. All lands in the run directory first.

    Attributes:
        run_dir: absolute.
        resumed: whether the run directory already held a recorded run, which this one continues.
        session: how many times the run was begun, this time included.
        identity: what tells this run's journal from every other.
        summary: what `summary.json` will hold; `end` adds status, failure and run id.
    """

    def __init__(self, run_dir: Path) -> None:
        """Reads what earlier sessions in `run_dir` have recorded."""
        self.run_dir = run_dir
        self.session = 1
        self.identity = uuid.uuid4().hex
        self._last_steps: dict[str, int] = {}
        self._parameters: dict[str, str] = {}
        self._checkpoints: dict[str, dict[str, Any]] = {}
        self._environment: dict[str, Any] = {}
        self._changed: set[str] = set()
        journal.repair(run_dir)
        for event, _ in journal.read(run_dir):
            self._recall(event)
        self.resumed = self.session > 1
        self.summary = read_summary(run_dir)
        self.summary.pop("status", None)
        self.summary.pop("failure", None)

    def begin(self, cfg: config.Config, parent: str | None = None) -> None:
        """Records the beginning of a session, and what is known of it from the start.

        Args:
            parent: MLflow run id or run directory of the run that this one is part of.
        """
        described = environment.describe(config.modules(cfg))
        tree = described["git"]
        tree["changed_meanwhile"] = _warn_of_source(tree)
        journal.append(
            self.run_dir,
            "open",
            experiment=cfg.name,
            name=self.run_dir.name,
            parent=parent,
            identity=self.identity,
            session=self.session,
            commit=tree["commit"],
            branch=tree["branch"],
        )
        self.tags(
            {
                "run_dir": self.run_dir,
                "garden": cfg.garden,
                "git_dirty": tree["dirty"],
                "sessions": self.session,
            }
        )
        self.file("config.yaml", config.to_yaml(cfg))
        self.file("diff.patch", tree.pop("diff"))
        self.file("requirements.txt", "\n".join(described["packages"]) + "\n")
        self.environment(**described)

    def end(self, status: str, failure: str | None = None) -> None:
        """Writes the summary and ends the journal.

        Args:
            status: MLflow's word: FINISHED, KILLED or FAILED.
            failure: the reason in one line.
        """
        summary = {
            **self.summary,
            "status": STATUS[status],
            "mlflow_run_id": read_run_id(self.run_dir),
        }
        if failure is not None:
            summary["failure"] = failure
        write_summary(self.run_dir, summary)
        self.file(SUMMARY)
        if (self.run_dir / "train.log").exists():
            self.file("train.log")
        journal.append(
            self.run_dir,
            "close",
            status=status,
            failure=failure,
            checkpoints=self._checkpoints,
        )

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Records figures of `step`, except those that an earlier session has of it or later."""
        step = int(step)
        fresh = {}
        for name, value in values.items():
            if step > self._last_steps.get(name, -1):
                self._last_steps[name] = step
                fresh[name] = journal.spell(value)
        if fresh:
            journal.append(
                self.run_dir,
                "metrics",
                step=step,
                values=fresh,
            )

    def file(self, name: str, text: str | None = None) -> Path:
        """Records a file of the run directory; returns its path.

        Args:
            text: what is written to it first. When a resumed run changes a text, the earlier one is
                kept as `sessions/<n>/<name>`.
        """
        path = self.run_dir / name
        if text is not None:
            if self.resumed and path.exists() and name not in self._changed:
                self._keep_earlier(name, text)
            durable.write_whole(path, text)
        journal.append(self.run_dir, "file", path=name)
        return path

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Records the few settings by which runs are compared; those of an earlier session stay."""
        fresh = {}
        for name, value in values.items():
            if name not in self._parameters:
                fresh[name] = str(value)
        if fresh:
            self._parameters.update(fresh)
            journal.append(self.run_dir, "parameters", values=fresh)

    def tags(self, values: Mapping[str, Any]) -> None:
        """Records words about the run; a later value replaces an earlier one."""
        texts = {name: str(value) for name, value in values.items()}
        journal.append(self.run_dir, "tags", values=texts)

    def dataset(self, name: str, fingerprint: str, source: str, profile: Mapping[str, Any]) -> None:
        """Records the data the run learns from.

        Args:
            profile: plain JSON: counts, classes, shards and their digests.
        """
        self.tags({"fingerprint": fingerprint})
        self.summary.update(dataset=name, fingerprint=fingerprint)
        journal.append(
            self.run_dir,
            "dataset",
            name=name,
            fingerprint=fingerprint,
            source=str(source),
            profile=dict(profile),
        )

    def environment(self, **more: Any) -> None:
        """Adds to `environment.json` what is known only later, such as devices and threads."""
        self._environment.update(more)
        text = json.dumps(without_secrets(self._environment), indent=1)
        self.file("environment.json", text + "\n")

    def checkpoint(self, which: str, path: str | Path, step: int) -> None:
        """Names the checkpoint that is now the `best` or the `last`; stored when the run ends.

        Args:
            path: its prefix or directory.
        """
        kept = Path(path).absolute()
        if kept.is_relative_to(self.run_dir):
            # A run directory may be moved before it is sent.
            kept = kept.relative_to(self.run_dir)
        self._checkpoints[which] = {"path": str(kept), "step": int(step)}

    def _recall(self, event: Mapping[str, Any]) -> None:
        """Takes in one event of an earlier session."""
        if event["event"] == "metrics":
            for name in event["values"]:
                last = self._last_steps.get(name, -1)
                self._last_steps[name] = max(event["step"], last)
        elif event["event"] == "parameters":
            self._parameters.update(event["values"])
        elif event["event"] == "open":
            self.session = event["session"] + 1
            self.identity = event["identity"]
        elif event["event"] == "close":
            self._checkpoints.update(event["checkpoints"])

    def _keep_earlier(self, name: str, text: str) -> None:
        """Keeps an earlier session's text that `text` is about to replace by another."""
        before = durable.read_text(self.run_dir / name)
        if before == text:
            return
        self._changed.add(name)
        earlier = Path("sessions", str(self.session - 1), name)
        durable.write_whole(self.run_dir / earlier, before)
        self.file(str(earlier))
        self.tags({"changed_on_resume": ", ".join(sorted(self._changed))})


def _warn_of_source(tree: Mapping[str, Any]) -> bool:
    """Warns where the recorded source may not be the code that runs.

    Returns:
        Whether the source was changed since the process started.
    """
    if tree["problem"]:
        print(
            "tracking: the source is not recorded, this run cannot be reproduced: "
            f"{tree['problem']}",
            file=sys.stderr,
        )
    now = environment.source_tree()
    changed = (now["commit"], now["diff"]) != (tree["commit"], tree["diff"])
    if changed:
        print(
            "tracking: the source has changed since this process started; recorded is the source "
            "at the start; what was imported later may be newer "
            "(environment.json: changed_meanwhile)",
            file=sys.stderr,
        )
    return changed
