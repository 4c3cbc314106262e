"""Processes: this tool in another one, the cores they share, how they end."""

import contextlib
import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.system import control_groups
from pipelines.usage import stopped_by

ROOT = Path(__file__).resolve().parents[2]  # where `pipelines`, `tasks` and `conf` lie
MODULE_PATH = "PYTHONPATH"  # the variable that has folders of the user's modules
PATIENCE_S = 300  # for a training to save its state when it is asked to stop
SERVER_PATIENCE_S = 5  # for a server to close its connections
SET_PDEATHSIG = 1  # prctl(2)

Process = subprocess.Popen[Any]


def this_tool(
    *arguments: str, module: str = "pipelines", root: Path = ROOT
) -> tuple[list[str], dict[str, str]]:
    """Returns command and environment that run this very code in another process, whatever is installed.

    Args:
        arguments: the verb and its overrides.
        module: what to run instead of the verbs.
        root: a source tree to run instead of our own.
    """
    # -P: the folder that the user stands in may have packages of the same names.
    command = [sys.executable, "-P", "-m", module, *arguments]
    path = os.pathsep.join(
        filter(
            None,
            (str(root), os.environ.get(MODULE_PATH)),
        )
    )
    return command, {**os.environ, MODULE_PATH: path}


def cores(root: Path = control_groups.MACHINE) -> int:
    """Number of cores that this process may use: those it is bound to, as far as its container gives time for them.

    Args:
        root: where the files of the kernel lie.
    """
    if hasattr(os, "sched_getaffinity"):
        bound = len(os.sched_getaffinity(0))
    else:
        bound = os.cpu_count() or 1
    return max(1, min([bound, *_granted(root)]))


def share(processes: int) -> int:
    """Number of cores for each of so many processes at a time, at least 1."""
    return max(1, cores() // processes)


def end_with(parent: int) -> Callable[[], None] | None:
    """For `preexec_fn`: asks the new process to save and end when `parent` dies, even of a kill -9."""
    if not sys.platform.startswith("linux"):
        return None  # There it outlives its parent.
    library = ctypes.CDLL(None)

    def bind() -> None:
        library.prctl(SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(stopped_by(signal.SIGTERM))

    return bind


def serve(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a server until it ends, or until Ctrl-C or SIGTERM, which end it quietly; returns its exit code.

    It has its own session, since Ctrl-C reaches the whole terminal group and servers answer it with tracebacks.
    """
    server = subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        preexec_fn=end_with(os.getpid()),
    )
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end_group(server)


def _end_group(leader: Process) -> None:
    """Ends the processes of a session: asked first, killed after some seconds."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, signum)
        wait([leader], SERVER_PATIENCE_S)


def stop(processes: Sequence[Process], patience_s: float = PATIENCE_S) -> None:
    """Asks processes to save and end, waits for them together, and kills those that have not ended then."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    wait(processes, patience_s)
    kill(processes)


def wait(processes: Sequence[Process], seconds: float) -> None:
    """Waits until all have ended, at most so long."""
    until = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))


def kill(processes: Sequence[Process]) -> None:
    """Kills those that have not ended."""
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def _granted(root: Path) -> Iterator[int]:
    """The cores that each control group gives time for in each period, where it has a limit."""
    for folder in control_groups.folders("cpu", root):
        # Version 2 has both numbers in one file.
        words = " ".join(control_groups.lines(folder / "cpu.max"))
        if not words:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            words = " ".join(line for name in names for line in control_groups.lines(folder / name))
        quota, _, period = words.partition(" ")
        if quota.isdecimal() and period.isdecimal():  # Without a limit: `max`, or -1.
            yield math.ceil(int(quota) / int(period))
