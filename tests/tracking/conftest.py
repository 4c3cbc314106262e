"""A real MLflow store on SQLite, copied for each test."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import Config
from pipelines.tracking import recording


def run_id(run_dir: Path, timeout_s: float = 60) -> str | None:
    """MLflow's id of a run, once it has given one; None when it cannot be told."""
    until = time.monotonic() + timeout_s
    while (
        not recording.read_run_id(run_dir)
        and not recording.trouble(run_dir)
        and time.monotonic() < until
    ):
        time.sleep(0.1)
    return recording.read_run_id(run_dir)


@pytest.fixture
def cfg(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A configuration whose store is ready and whose run directory is new."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return Config(
        name="tiny",
        garden="image_classification",
        data_dir="data",
        runs_dir=str(tmp_path),
        run_dir=str(tmp_path / "tiny" / "one"),
    )


@pytest.fixture
def write_session(cfg: Config) -> Callable[..., recording.Recorder]:
    """Writes one session into the run directory's journal, without a process that delivers it."""

    def write(
        report: Callable[[recording.Recorder], None] = lambda recorder: None, **how: str | None
    ) -> recording.Recorder:
        recorder = recording.Recorder(Path(cfg.run_dir))
        recording.begin(recorder, cfg, how.get("parent"))
        report(recorder)
        recording.end(recorder, how.get("status") or "FINISHED", how.get("failure"))
        return recorder

    return write
