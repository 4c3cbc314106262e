"""What the run directory of a recorded run holds, read and written file by file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.outside import without_secrets
from pipelines.system import durable
from pipelines.tracking import journal

RUN_ID = "mlflow_run_id"
SUMMARY = "summary.json"
TEXTS = (
    "config.yaml",
    "params.yaml",
    "manifest.json",
    "environment.json",
    "requirements.txt",
    "diff.patch",
    "flight.jsonl",
    SUMMARY,
)
STATUS = {  # MLflow's words and ours
    "FINISHED": "finished",
    "KILLED": "interrupted",
    "FAILED": "failed",
}


@dataclass(frozen=True)
class RunRecord:
    """A recorded run.

    Attributes:
        run_dir: None when it is no longer on this disk.
        run_id: None when MLflow was never told.
        texts: what was recorded as text, by file name (`config.yaml`, `params.yaml`, …).
        metrics: every figure: name, then step.
        uri: the store that has the run, or will have it.
    """

    run_dir: Path | None
    run_id: str | None
    texts: Mapping[str, str]
    metrics: Mapping[str, Mapping[int, float]]
    uri: str


def read(run_dir: Path, uri: str) -> RunRecord:
    """The run recorded in `run_dir`."""
    files = {name: run_dir / name for name in TEXTS}
    texts = {name: durable.read_text(file) for name, file in files.items() if file.exists()}
    return RunRecord(
        run_dir,
        read_run_id(run_dir),
        texts,
        journal.metrics(run_dir),
        uri,
    )


def read_summary(run_dir: str | Path) -> dict[str, Any]:
    """What `summary.json` holds, nothing where there is none."""
    path = Path(run_dir, SUMMARY)
    return json.loads(path.read_text()) if path.exists() else {}


def write_summary(run_dir: str | Path, summary: Mapping[str, Any]) -> Path:
    """Writes `summary.json`, whole or not at all; figures that are not finite become words."""
    path = Path(run_dir, SUMMARY)
    plain = without_secrets(_plain(summary))
    durable.write_whole(path, json.dumps(plain, indent=2, allow_nan=False) + "\n")
    return path


def read_run_id(run_dir: str | Path) -> str | None:
    """MLflow's id of the run recorded in `run_dir`, None until it has given one."""
    path = Path(run_dir, RUN_ID)
    return path.read_text().strip() if path.exists() else None


def write_run_id(run_dir: Path, run_id: str) -> None:
    """Keeps the id that MLflow has given to the run recorded in `run_dir`."""
    durable.write_whole(run_dir / RUN_ID, run_id + "\n")


def read_sent(run_dir: Path) -> dict[str, dict[str, Any]]:
    """How far stores have been told: by address without password, `run_id` and `offset`."""
    path = _sent(run_dir)
    return json.loads(path.read_text())["stores"] if path.exists() else {}


def write_sent(run_dir: Path, stores: Mapping[str, Mapping[str, Any]]) -> None:
    """Keeps how far each store has been told."""
    durable.write_whole(_sent(run_dir), json.dumps({"stores": stores}, indent=1) + "\n")


def trouble(run_dir: Path) -> str | None:
    """Why MLflow could not be told the latest, None while all is well."""
    path = _trouble(run_dir)
    return path.read_text() if path.exists() else None


def report_trouble(run_dir: Path, reason: str | None) -> None:
    """Tells the process that trains why MLflow cannot be told the latest; None: it can again."""
    path = _trouble(run_dir)
    if reason is None:
        path.unlink(missing_ok=True)
    else:
        durable.write_whole(path, reason)


def _sent(run_dir: Path) -> Path:
    return journal.folder(run_dir) / "sent.json"


def _trouble(run_dir: Path) -> Path:
    return journal.folder(run_dir) / "trouble"


def _plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    return str(value) if isinstance(value, Path) else journal.spell(value)
