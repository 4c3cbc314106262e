"""Runs: recording one while it is made, and finding one again. MLflow itself works in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import config
from pipelines.outside import reason, redacted
from pipelines.system import durable, processes
from pipelines.tracking import journal
from pipelines.tracking.recording import (
    SUMMARY,
    Recorder,
    begin,
    end,
    read_run_id,
    trouble,
)
from pipelines.usage import InUse, UsageError, nearest, stopped_by

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


def store(cfg: config.Config) -> str:
    """MLflow's tracking address: `MLFLOW_TRACKING_URI`, else the SQLite store in `runs_dir`.

    Raises:
        UsageError: the address is a folder.
    """
    uri = (
        os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{Path(config.absolute(cfg.runs_dir)) / 'mlflow.db'}"
    )
    if uri.startswith("file:") or (":" not in uri and uri != "databricks"):
        raise UsageError(
            f"MLFLOW_TRACKING_URI: {redacted(uri)} is a folder, which MLflow no longer takes; give a server (http://…) or a database "
            "(sqlite:///…), or unset it for the store in runs_dir"
        )
    return uri


def prepare(cfg: config.Config) -> str:
    """Creates the SQLite store where it does not exist yet, once among any number of processes; returns the address."""
    uri = store(cfg)
    database = sqlite_file(uri)
    if database is not None and not database.exists():
        from pipelines.tracking import delivery  # MLflow takes seconds to import.

        delivery.prepare(uri)
    return uri


def sqlite_file(uri: str) -> Path | None:
    """The database file of a SQLite address, None for a server."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def start_sender(cfg: config.Config) -> "subprocess.Popen[str]":
    """Starts the process that tells MLflow; for `record`, which starts it itself where nobody has done so before.

    It imports MLflow and creates the store: 5 to 10 s that can pass while this process imports TensorFlow.
    """
    # A process, not a thread: importing takes the interpreter lock that TensorFlow's import needs. A session of its own:
    # Ctrl-C reaches the whole terminal group, and the end of the run still has to be sent.
    command, environment = processes.this_tool(module="pipelines.tracking.sender")
    sender = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,  # Until it knows the run directory, and its log there.
        env=environment,
        start_new_session=True,
        text=True,
    )
    _tell(sender, store(cfg))
    return sender


def _tell(sender: "subprocess.Popen[str]", line: str) -> None:
    with suppress(BrokenPipeError):  # It is gone, which stops nothing here; `_await` says so.
        print(line, file=sender.stdin, flush=True)


@contextmanager
def record(
    cfg: config.Config,
    *,
    parent: str | None = None,
    interrupted: tuple[type[BaseException], ...] = (),
    sender: "subprocess.Popen[str] | None" = None,
) -> Iterator[Recorder]:
    """Records what happens inside as one run of experiment `cfg.name`; in a used run directory, as its continuation.

    Leaving normally means finished; by `KeyboardInterrupt`, `SystemExit` with the code of SIGINT or SIGTERM or one of `interrupted`: interrupted;
    by anything else: failed. A tracking server that does not answer never stops the run.

    Args:
        parent: MLflow run id or run directory of the run that this one is part of.
        sender: of `start_sender`.

    Raises:
        InUse: another process is recording in this run directory.
    """
    run_dir = Path(config.absolute(cfg.run_dir))
    with _occupied(run_dir):
        recorder = Recorder(run_dir)
        (journal.folder(run_dir) / "trouble").unlink(missing_ok=True)  # An earlier session's.
        sender = sender or start_sender(cfg)
        _tell(sender, str(run_dir))
        begin(recorder, cfg, parent)
        status, failure = "FINISHED", None
        try:
            yield recorder
        except BaseException as error:
            status, failure = _outcome(error, interrupted)
            raise
        finally:
            end(recorder, status, failure)
            _await(sender, run_dir)


@contextmanager
def _occupied(run_dir: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(durable.locked(journal.folder(run_dir) / "run.lock", wait=False))
        except BlockingIOError:
            holder = durable.holder(journal.folder(run_dir) / "run.lock")
            raise InUse(
                f"run_dir: {run_dir} is in use by process {holder}; wait for it, or choose another: run_dir=…"
            ) from None
        yield


def _outcome(
    error: BaseException, interrupted: tuple[type[BaseException], ...]
) -> tuple[str, str | None]:
    """MLflow's word for how a run ended, and the reason in one line."""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return "FINISHED", None
    words = reason("".join(traceback.format_exception_only(error)), 500)
    stopped = isinstance(error, SystemExit) and error.code in map(
        stopped_by, (signal.SIGINT, signal.SIGTERM)
    )
    return (
        "KILLED" if stopped or isinstance(error, (KeyboardInterrupt, *interrupted)) else "FAILED"
    ), words


def _await(sender: "subprocess.Popen[str]", run_dir: Path) -> None:
    """Waits until MLflow has it all, or cannot have it now."""
    with suppress(BrokenPipeError):
        sender.stdin.close()  # type: ignore[union-attr]
    if sender.wait() != 0:
        last_words = sender.stderr.read().split("\n")[-2:]  # type: ignore[union-attr]
        cause = (
            trouble(run_dir)
            or reason(last_words[0])
            or f"see {journal.folder(run_dir) / 'sender.log'}"
        )
        print(
            f"tracking: MLflow did not take everything ({cause}); all of it is kept in {run_dir}; "
            f"send it later: trellis sync run={run_dir}",
            file=sys.stderr,
        )


@dataclass(frozen=True)
class RunRecord:
    """A recorded run.

    Attributes:
        run_dir: None when it is no longer on this disk.
        run_id: None when MLflow was never told.
        texts: what was recorded as text, by file name (`config.yaml`, `params.yaml`, `manifest.json`, …).
        metrics: every figure: name, then step.
    """

    run_dir: Path | None
    run_id: str | None
    texts: Mapping[str, str]
    metrics: Mapping[str, Mapping[int, float]]
    uri: str

    def checkpoints(self, destination: str | Path) -> Path:
        """The folder `checkpoints`: the run directory's, else fetched from MLflow (`best/`, `last/`) into `destination`."""
        if self.run_dir is not None and (self.run_dir / "checkpoints").is_dir():
            return self.run_dir / "checkpoints"
        from pipelines.tracking import retrieval  # MLflow takes seconds to import.

        return retrieval.checkpoints(self.uri, str(self.run_id), Path(destination))


def find(run: str | None, cfg: config.Config) -> RunRecord:
    """The recorded run that `run` names: an MLflow run id or a run directory.

    Raises:
        UsageError: there is none; names the latest runs.
    """
    if not run:
        raise UsageError(
            "run: name one, an MLflow run id or a run directory; the runs there are: make ui"
        )
    run_dir = Path(config.absolute(run))
    if not is_run(run_dir):
        run_dir = next(
            (folder for folder in local_runs(cfg) if read_run_id(folder) == run), run_dir
        )
    if is_run(run_dir):
        return read(run_dir, store(cfg))
    from pipelines.tracking import retrieval  # MLflow takes seconds to import.

    return retrieval.fetch(store(cfg), run, TEXTS) or _refuse(run, cfg)


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


def read(run_dir: Path, uri: str) -> RunRecord:
    """The run recorded in `run_dir`."""
    texts = {name: durable.read_text(run_dir / name) for name in TEXTS if (run_dir / name).exists()}
    return RunRecord(run_dir, read_run_id(run_dir), texts, journal.metrics(run_dir), uri)


def local_runs(cfg: config.Config) -> list[Path]:
    """Run directories under `runs_dir`, the latest first."""
    journals = Path(config.absolute(cfg.runs_dir)).glob(f"**/{journal.FOLDER}/journal.jsonl")
    latest_first = sorted(journals, key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent.parent for path in latest_first if is_run(path.parent.parent)]


def unsent(run_dir: Path, uri: str) -> bool:
    """Whether the store at `uri` has not been told everything about the run in `run_dir`."""
    sent = journal.folder(run_dir) / "sent.json"
    stores = json.loads(sent.read_text())["stores"] if sent.exists() else {}
    return (
        next(journal.read(run_dir, stores.get(redacted(uri), {}).get("offset", 0)), None)
        is not None
    )


def active(run_dir: Path) -> bool:
    """Whether a process is recording in `run_dir` now."""
    return durable.held(journal.folder(run_dir) / "sender.lock")


def is_run(run_dir: Path) -> bool:
    """Whether a run was recorded in this directory. What MLflow keeps among a run's artifacts is a copy, not a run."""
    return (journal.folder(run_dir) / "journal.jsonl").exists() and not _in_mlflow(run_dir)


def _in_mlflow(run_dir: Path) -> bool:
    """Whether a folder is where MLflow stores the artifacts of a run: `<run id>/artifacts`, in any store."""
    folder = run_dir.absolute()
    return (
        folder.name == "artifacts" and re.fullmatch("[0-9a-f]{32}", folder.parent.name) is not None
    )


def _refuse(run: str, cfg: config.Config) -> Any:
    known = {str(read_run_id(folder)): folder for folder in local_runs(cfg)}
    latest = "".join(f"\n  {run_id}  {folder}" for run_id, folder in list(known.items())[:5])
    raise UsageError(
        f"run: no run {run!r} on disk or in {redacted(store(cfg))}{nearest(run, list(known)[:20])}"
        + (f"\nthe latest:{latest}" if latest else "")
        + "\nall of them: make ui"
    )
