"""One session of a run, from beginning to end, with the process beside it that tells MLflow."""

import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipelines import config
from pipelines.outside import reason
from pipelines.system import durable, processes
from pipelines.tracking import journal, mlflow_store, record
from pipelines.tracking.recording import Recorder
from pipelines.usage import InUse, stopped_by

Sender = subprocess.Popen[str]
STOPPED = tuple(stopped_by(number) for number in (signal.SIGINT, signal.SIGTERM))


def start_sender(cfg: config.Config) -> Sender:
    """Starts the process that tells MLflow; hand it to `recorded`, which otherwise starts one.

    It imports MLflow and creates the store: 5 to 10 s that can pass while this process imports
    TensorFlow.
    """
    # A process, not a thread: importing takes the interpreter lock that TensorFlow's import needs.
    # It has its own session: Ctrl-C reaches the whole terminal group, and the end of the run still
    # has to be sent.
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
    _tell(sender, mlflow_store.address(cfg))
    return sender


@contextmanager
def recorded(
    cfg: config.Config,
    *,
    parent: str | None = None,
    sender: Sender | None = None,
) -> Iterator[Recorder]:
    """Records what happens inside as one run of `cfg.name`; in a used run directory, continues it.

    Leaving normally means finished. An exception means failed, unless it says that the run was
    asked to stop: `KeyboardInterrupt`, which `Interrupted` is, or `SystemExit` with the code of
    SIGINT or SIGTERM. A tracking server that does not answer never stops the run.

    Args:
        parent: MLflow run id or run directory of the run that this one is part of.
        sender: what `start_sender` has returned.

    Raises:
        InUse: another process is recording in this run directory.
    """
    run_dir = Path(config.absolute(cfg.run_dir))
    with _occupied(run_dir):
        recorder = Recorder(run_dir)
        record.report_trouble(run_dir, None)  # Forgets an earlier session's.
        sender = sender or start_sender(cfg)
        _tell(sender, str(run_dir))
        recorder.begin(cfg, parent)
        status, failure = "FINISHED", None
        try:
            yield recorder
        except BaseException as error:
            status, failure = _outcome(error)
            raise
        finally:
            recorder.end(status, failure)
            _await(sender, run_dir)


@contextmanager
def _occupied(run_dir: Path) -> Iterator[None]:
    lock = journal.run_lock(run_dir)
    with ExitStack() as stack:
        try:
            stack.enter_context(durable.locked(lock, wait=False))
        except BlockingIOError:
            raise InUse(
                f"run_dir: {run_dir} is in use by process {durable.holder(lock)}; "
                "wait for it, or choose another: run_dir=…"
            ) from None
        yield


def _outcome(error: BaseException) -> tuple[str, str | None]:
    """MLflow's word for how a run ended, and the reason in one line."""
    code = error.code if isinstance(error, SystemExit) else 1
    if code in (None, 0):
        return "FINISHED", None
    asked_to_stop = code in STOPPED or isinstance(error, KeyboardInterrupt)
    words = "".join(traceback.format_exception_only(error))
    return "KILLED" if asked_to_stop else "FAILED", reason(words, 500)


def _tell(sender: Sender, line: str) -> None:
    # A sender that has died must not stop a training; `_await` reports it at the end.
    with suppress(BrokenPipeError):
        print(line, file=sender.stdin, flush=True)


def _await(sender: Sender, run_dir: Path) -> None:
    """Waits until MLflow has it all, or cannot have it now."""
    assert sender.stdin is not None
    assert sender.stderr is not None
    with suppress(BrokenPipeError):
        sender.stdin.close()
    if sender.wait() == 0:
        return
    last_words = sender.stderr.read().split("\n")[-2:]
    log = journal.folder(run_dir) / "sender.log"
    cause = record.trouble(run_dir) or reason(last_words[0]) or f"see {log}"
    print(
        f"tracking: MLflow did not take everything ({cause}); all of it is kept in {run_dir}; "
        f"send it later: make sync RUN={run_dir}",
        file=sys.stderr,
    )
