"""The recorder of one run: everything lands in its run directory first, as files and as events of the journal."""

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

RUN_ID = "mlflow_run_id"
SUMMARY = "summary.json"
STATUS = {
    "FINISHED": "finished",
    "KILLED": "interrupted",
    "FAILED": "failed",
}  # MLflow's words and ours


class Recorder:
    """Records one run: call it with a step and its figures. Everything lands in the run directory first.

    Attributes:
        run_dir: absolute.
        resumed: whether the run directory already held a recorded run, which this one continues.
        summary: what `summary.json` will hold; status, failure and run id are added at the end.
    """

    def __init__(self, run_dir: Path) -> None:
        """Reads what earlier sessions in `run_dir` have recorded."""
        self.run_dir = run_dir
        self._last: dict[str, int] = {}
        self._parameters: dict[str, str] = {}
        self.checkpoints: dict[str, dict[str, Any]] = {}
        self._changed: set[str] = set()
        self._environment: dict[str, Any] = {}
        self.session = 1
        self.identity = uuid.uuid4().hex
        journal.mend(run_dir)
        for event, _ in journal.read(run_dir):
            self._recall(event)
        self.resumed = self.session > 1
        previous = read_summary(run_dir)
        self.summary = {
            key: value for key, value in previous.items() if key not in ("status", "failure")
        }

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Records figures of `step`. A figure that an earlier session recorded for this or a later step is left alone."""
        step = int(step)
        fresh = {
            name: journal.spell(value)
            for name, value in values.items()
            if step > self._last.get(name, -1)
        }
        if fresh:
            self._last.update(dict.fromkeys(fresh, step))
            journal.append(self.run_dir, "metrics", step=step, values=fresh)

    def file(self, name: str, text: str | None = None) -> Path:
        """Records a file of the run directory, written first where `text` is given; returns its path.

        When a resumed run changes a text, the earlier one is kept as `sessions/<n>/<name>`.
        """
        path = self.run_dir / name
        if text is not None:
            before = durable.read_text(path) if path.exists() and self.resumed else text
            if before != text and name not in self._changed:
                self._changed.add(name)
                earlier = self.run_dir / "sessions" / str(self.session - 1) / name
                durable.write_whole(earlier, before)
                self.file(str(earlier.relative_to(self.run_dir)))
                self.tags({"changed_on_resume": ", ".join(sorted(self._changed))})
            durable.write_whole(path, text)
        journal.append(self.run_dir, "file", path=name)
        return path

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Records the few chosen settings by which runs are compared. Those of an earlier session stay as they are."""
        fresh = {name: str(value) for name, value in values.items() if name not in self._parameters}
        if fresh:
            self._parameters.update(fresh)
            journal.append(self.run_dir, "parameters", values=fresh)

    def tags(self, values: Mapping[str, Any]) -> None:
        """Records words about the run, such as `determinism_class`; a later value replaces an earlier one."""
        journal.append(
            self.run_dir, "tags", values={name: str(value) for name, value in values.items()}
        )

    def dataset(self, name: str, fingerprint: str, source: str, profile: Mapping[str, Any]) -> None:
        """Records the data the run learns from; `profile` is JSON: counts, classes, shards and their digests."""
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
        """Adds to `environment.json` what is known only later: devices, thread counts, the determinism class."""
        self._environment.update(more)
        self.file(
            "environment.json", json.dumps(without_secrets(self._environment), indent=1) + "\n"
        )

    def checkpoint(self, which: str, path: str | Path, step: int) -> None:
        """Names the checkpoint (prefix or directory) that is now the `best` or the `last`; stored when the run ends."""
        absolute = Path(path).absolute()
        inside = absolute.is_relative_to(
            self.run_dir
        )  # Relative: a run directory may be moved before it is sent.
        self.checkpoints[which] = {
            "path": str(absolute.relative_to(self.run_dir) if inside else absolute),
            "step": int(step),
        }

    def _recall(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "metrics":
            for name in event["values"]:
                self._last[name] = max(event["step"], self._last.get(name, -1))
        elif event["event"] == "parameters":
            self._parameters.update(event["values"])
        elif event["event"] == "open":
            self.session, self.identity = event["session"] + 1, event["identity"]
        elif event["event"] == "close":
            self.checkpoints.update(event["checkpoints"])


def begin(recorder: Recorder, cfg: config.Config, parent: str | None = None) -> None:
    """Records the beginning of a session, and what is known of it from the start."""
    described = environment.describe()
    tree = described["git"]
    tree["changed_meanwhile"] = _say_what_is_amiss(tree)
    journal.append(
        recorder.run_dir,
        "open",
        experiment=cfg.name,
        name=recorder.run_dir.name,
        parent=parent,
        identity=recorder.identity,
        session=recorder.session,
        commit=tree["commit"],
        branch=tree["branch"],
    )
    recorder.tags(
        {
            "run_dir": recorder.run_dir,
            "garden": cfg.garden,
            "git_dirty": tree["dirty"],
            "sessions": recorder.session,
        }
    )
    recorder.file("config.yaml", config.to_yaml(cfg))
    recorder.file("diff.patch", tree.pop("diff"))
    recorder.file("requirements.txt", "\n".join(described["packages"]) + "\n")
    recorder.environment(**described)


def _say_what_is_amiss(tree: Mapping[str, Any]) -> bool:
    """Says where the recorded source may not be the code that runs; returns whether it was changed since the start."""
    if tree["problem"]:
        print(
            f"tracking: the source is not recorded, this run cannot be reproduced: {tree['problem']}",
            file=sys.stderr,
        )
    now = environment.source_tree()
    changed = (now["commit"], now["diff"]) != (tree["commit"], tree["diff"])
    if changed:
        words = "recorded is the source at the start; what was imported later may be newer (environment.json: changed_meanwhile)"
        print(
            f"tracking: the source has changed since this process started; {words}", file=sys.stderr
        )
    return changed


def end(recorder: Recorder, status: str, failure: str | None) -> None:
    """Writes the summary and ends the journal; `status` is MLflow's word."""
    summary = {
        **recorder.summary,
        "status": STATUS[status],
        "mlflow_run_id": read_run_id(recorder.run_dir),
    }
    write_summary(recorder.run_dir, summary if failure is None else {**summary, "failure": failure})
    recorder.file(SUMMARY)
    if (recorder.run_dir / "train.log").exists():
        recorder.file("train.log")
    journal.append(
        recorder.run_dir, "close", status=status, failure=failure, checkpoints=recorder.checkpoints
    )


def write_summary(run_dir: str | Path, summary: Mapping[str, Any]) -> Path:
    """Writes `summary.json`, whole or not at all; figures that are not finite are written as words."""
    path = Path(run_dir, SUMMARY)
    durable.write_whole(
        path, json.dumps(without_secrets(_spell(summary)), indent=2, allow_nan=False) + "\n"
    )
    return path


def read_summary(run_dir: str | Path) -> dict[str, Any]:
    """What `summary.json` holds, nothing where there is none."""
    path = Path(run_dir, SUMMARY)
    return json.loads(path.read_text()) if path.exists() else {}


def read_run_id(run_dir: str | Path) -> str | None:
    """MLflow's id of the run recorded in `run_dir`."""
    path = Path(run_dir, RUN_ID)
    return path.read_text().strip() if path.exists() else None


def trouble(run_dir: Path) -> str | None:
    """Why MLflow could not be told the latest, None while all is well."""
    path = journal.folder(run_dir) / "trouble"
    return path.read_text() if path.exists() else None


def _spell(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _spell(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spell(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    return str(value) if isinstance(value, Path) else journal.spell(value)
