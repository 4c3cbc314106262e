"""The runs there are: found by id or directory, what of them MLflow lacks, what is added later."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines import config
from pipelines.outside import reason, redacted
from pipelines.system import durable
from pipelines.tracking import journal, mlflow_store
from pipelines.tracking.record import TEXTS, RunRecord, read, read_run_id, read_sent
from pipelines.usage import UsageError, nearest

LATEST = 5  # runs that an error names
COMPARED = 20  # runs whose ids are compared with one that is not found


def find(run: str | None, cfg: config.Config) -> RunRecord:
    """The recorded run that `run` names: an MLflow run id or a run directory.

    Raises:
        UsageError: there is none; names the latest runs.
    """
    if not run:
        raise UsageError(
            "run: name one, an MLflow run id or a run directory; the runs there are: make ui"
        )
    uri = mlflow_store.address(cfg)
    run_dir = Path(config.absolute(run))
    if not journal.exists(run_dir):
        of_this_id = (folder for folder in local_runs(cfg) if read_run_id(folder) == run)
        run_dir = next(of_this_id, run_dir)
    if journal.exists(run_dir):
        return read(run_dir, uri)
    from pipelines.tracking import retrieval  # MLflow takes seconds to import.

    fetched = retrieval.fetch(uri, run, TEXTS)
    if fetched is None:
        raise UsageError(_absent(run, uri, local_runs(cfg)))
    return fetched


def directory(record: RunRecord, run: str | None, instead: str) -> Path:
    """The run directory of a recorded run.

    Args:
        run: how the user named it.
        instead: what the message says where the directory is gone.

    Raises:
        UsageError: it is gone.
    """
    if record.run_dir is None:
        raise UsageError(f"run: the directory of {run} is gone from this machine; {instead}")
    return record.run_dir


def checkpoints(record: RunRecord, destination: str | Path) -> Path:
    """The folder `checkpoints`: the run directory's, else fetched from MLflow to `destination`.

    Fetched are the best and the last, in folders of these names.
    """
    if record.run_dir is not None:
        folder = record.run_dir / "checkpoints"
        if folder.is_dir():
            return folder
    from pipelines.tracking import retrieval  # MLflow takes seconds to import.

    return retrieval.checkpoints(record.uri, str(record.run_id), Path(destination))


def local_runs(cfg: config.Config) -> list[Path]:
    """Run directories under `runs_dir`, the latest first."""
    root = Path(config.absolute(cfg.runs_dir))
    journals = root.glob(f"**/{journal.FOLDER}/{journal.FILE}")
    latest_first = sorted(journals, key=lambda path: path.stat().st_mtime, reverse=True)
    folders = []
    for path in latest_first:
        run_dir = path.parent.parent
        if journal.exists(run_dir):
            folders.append(run_dir)
    return folders


def unsent(run_dir: Path, uri: str) -> bool:
    """Whether the store at `uri` has not been told everything about the run in `run_dir`."""
    told = read_sent(run_dir).get(redacted(uri), {})
    following = journal.read(run_dir, told.get("offset", 0))
    return next(following, None) is not None


def active(run_dir: Path) -> bool:
    """Whether a process is recording in `run_dir` now."""
    return durable.held(journal.sender_lock(run_dir))


def annotate(run_dir: Path, uri: str, tags: Mapping[str, Any], files: Sequence[str] = ()) -> None:
    """Adds tags and files of the run directory to a finished run: what it reproduces, a verdict.

    They are kept for `make sync` where the store at `uri` does not answer.
    """
    from pipelines.tracking import delivery  # MLflow takes seconds to import.

    for name in files:
        journal.append(run_dir, "file", path=name)
    texts = {name: str(value) for name, value in tags.items()}
    journal.append(run_dir, "tags", values=texts)
    try:
        delivery.deliver(run_dir, uri)
    except Exception as error:  # A tracking server may fail in any way; nothing is lost.
        words = reason(error, 200)
        print(
            f"tracking: {words}; send it later: make sync RUN={run_dir}",
            file=sys.stderr,
        )


def _absent(run: str, uri: str, folders: Sequence[Path]) -> str:
    """What an error says about a run that is nowhere."""
    by_id = {str(read_run_id(folder)): folder for folder in folders}
    similar = nearest(run, list(by_id)[:COMPARED])
    lines = [f"run: no run {run!r} on disk or in {redacted(uri)}{similar}"]
    if by_id:
        lines.append("the latest:")
    for run_id, folder in list(by_id.items())[:LATEST]:
        lines.append(f"  {run_id}  {folder}")
    lines.append("all of them: make ui")
    return "\n".join(lines)
