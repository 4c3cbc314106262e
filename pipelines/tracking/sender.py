"""The process beside a run that keeps MLflow up to date and outlives it just long enough.

Told on standard input, one line each, which store and, once there is a run, which run directory.
The end of that input is the end of the run.
"""

import os
import select
import signal
import sys
import time
from pathlib import Path

from pipelines.outside import Discreet, reason
from pipelines.system import durable
from pipelines.tracking import delivery, journal, mlflow_store, record

INTERVAL_S = 2.0
LONGEST_PAUSE_S = 30.0
GRACE_S = 10.0  # how long the end of a run waits for a server that does not answer


def main() -> int:
    """Delivers until the run has ended and MLflow knows it; not 0 when it could not take it all."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # The run decides when it ends; its end still has to be sent.
        signal.signal(number, signal.SIG_IGN)
    # MLflow's own words and tracebacks name the store's whole address.
    sys.stdout = sys.stderr = Discreet(sys.stderr)
    parent = os.getppid()
    os.nice(10)  # Training first.
    uri = sys.stdin.readline().strip()
    try:
        mlflow_store.create(uri)
    except Exception as error:  # Tried again once there is a run to tell about it.
        print(_words(error), file=sys.stderr, flush=True)
    run_dir = Path(sys.stdin.readline().strip())
    if run_dir == Path():
        return 0  # There never was a run.
    with (journal.folder(run_dir) / "sender.log").open("a") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    with durable.locked(journal.sender_lock(run_dir)):
        return _follow(run_dir, uri, parent)


def _follow(run_dir: Path, uri: str, parent: int) -> int:
    """Delivers again and again until the end of the run, and that end."""
    courier: delivery.Delivery | None = None
    pause = INTERVAL_S
    ended_at: float | None = None
    while True:
        if ended_at is None and _ended(0 if courier is None else pause, parent):
            ended_at = time.monotonic()
            _close_abandoned(run_dir, parent, ended_at + GRACE_S)
        try:
            mlflow_store.create(uri)
            courier = courier or delivery.Delivery(run_dir, uri)
            courier.advance()
            record.report_trouble(run_dir, None)
            pause = INTERVAL_S
            if ended_at is not None:
                print(*courier.refused, sep="\n", flush=True)
                return 1 if courier.refused else 0
        except Exception as error:  # Whatever it is, the run continues and the journal has it all.
            trouble = _words(error)
            print(time.strftime("%F %T"), trouble, flush=True)
            record.report_trouble(run_dir, trouble)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            if ended_at is not None:
                if time.monotonic() - ended_at > GRACE_S:
                    return 1
                time.sleep(INTERVAL_S)


def _ended(timeout_s: float, parent: int) -> bool:
    """Whether the run ended within `timeout_s`: its side of our input was closed, or it is gone."""
    readable, _, _ = select.select(
        [sys.stdin],
        [],
        [],
        timeout_s,
    )
    return bool(readable) or os.getppid() != parent


def _close_abandoned(run_dir: Path, parent: int, until: float) -> None:
    """Closes the journal of a run that was killed."""
    # The kernel closes a killed process's files one by one: our pipe may close before its lock is
    # released.
    while journal.close_abandoned(run_dir) == parent and time.monotonic() < until:
        time.sleep(0.05)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {reason(error)}"


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # All is delivered, and the run waits for this process: taking MLflow's modules down takes 0.7 s.
    os._exit(code)
