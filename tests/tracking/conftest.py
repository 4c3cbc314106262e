"""A real MLflow store on SQLite, copied for each test."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import Config
from pipelines.tracking.record import read_run_id, trouble
from pipelines.tracking.recording import Recorder


def run_id(run_dir: Path, timeout_s: float = 300) -> str | None:
    """MLflow's id of a run, once it has given one; None when it cannot be told."""
    until = time.monotonic() + timeout_s
    while not read_run_id(run_dir) and not trouble(run_dir) and time.monotonic() < until:
        time.sleep(0.1)
    return read_run_id(run_dir)


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
def write_session(cfg: Config) -> Callable[..., Recorder]:
    """Writes one session into the run directory's journal, without a process that delivers it."""

    def write(
        report: Callable[[Recorder], None] = lambda recorder: None, **how: str | None
    ) -> Recorder:
        recorder = Recorder(Path(cfg.run_dir))
        recorder.begin(cfg, how.get("parent"))
        report(recorder)
        recorder.end(how.get("status") or "FINISHED", how.get("failure"))
        return recorder

    return write
