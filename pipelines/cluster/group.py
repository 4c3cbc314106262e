"""A group of workers on this machine.

They are started and stopped together, shown line by line, and started again when one dies.
"""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from pipelines.cluster.membership import Membership
from pipelines.cluster.verdict import Verdict, judge
from pipelines.system import processes
from pipelines.usage import ExitCode, stopped_by

NOTICE_S = 30  # for workers to notice that another has gone, and to write down why they stop
POLL_S = 0.1


class Group:
    """Runs one verb of this tool as several workers.

    Args:
        command: the verb and its overrides.
        workers: how many.
        restarts: how often a group that lost a worker is started again.
        bind: called in each new process before it becomes a worker.
    """

    def __init__(
        self, command: Sequence[str], workers: int, restarts: int, bind: Callable[[], None] | None
    ) -> None:
        self._command, self._environment = processes.this_tool(*command)
        self._workers = workers
        self._restarts = restarts
        self._bind = bind
        self._processes: list[subprocess.Popen[str]] = []

    def run(self, check: Callable[[], None]) -> int:
        """Returns 0, or the exit code of the worker that the others failed with.

        One that was killed counts as 128 plus the signal.

        Args:
            check: called all the time; when it raises, the workers are asked to save and stop.
        """
        for attempt in range(self._restarts + 1):
            with self._started():
                verdict = self._watch(check)
            if verdict.code == ExitCode.DONE:
                break
            print(f"launch: worker {verdict.worker} {self._end_of(verdict.worker)}", flush=True)
            # On one machine a lock ends with its owner: what is in use stays in use.
            if not verdict.again or verdict.code == ExitCode.IN_USE or attempt == self._restarts:
                break
            # The others cannot continue without the one that is gone, and TensorFlow does not let a
            # new process take its place.
            print(
                f"launch: all workers start again from the newest checkpoint "
                f"(restart {attempt + 1} of {self._restarts})",
                flush=True,
            )
        return verdict.code

    @contextlib.contextmanager
    def _started(self) -> Iterator[None]:
        """Starts the workers; at the end of the block none of them is left."""
        hosts = tuple(f"127.0.0.1:{port}" for port in free_ports(self._workers))
        readers: list[threading.Thread] = []
        self._processes = []
        try:
            for index in range(self._workers):
                process = self._start(Membership(hosts, index, "launch"))
                self._processes.append(process)
                readers.append(threading.Thread(target=_show, args=(process, index)))
                readers[-1].start()
            yield
        finally:
            processes.kill(self._processes)
            for reader in readers:
                reader.join()

    def _start(self, member: Membership) -> "subprocess.Popen[str]":
        own = {"PYTHONUNBUFFERED": "1", "TF_CONFIG": member.tf_config()}
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**self._environment, **own},
            start_new_session=True,  # The launcher passes on Ctrl-C of the terminal.
            preexec_fn=self._bind,
            text=True,
            errors="replace",
        )

    def _watch(self, check: Callable[[], None]) -> Verdict:
        """Waits for the end of all, or of one and of those that notice; judges by their codes."""
        while not any(codes := self._codes().values()):
            if len(codes) == self._workers:
                break
            try:
                check()
            except BaseException:
                processes.stop(self._processes)
                if all(process.returncode == ExitCode.DONE for process in self._processes):
                    break  # They had done all before they were asked.
                raise
            time.sleep(POLL_S)
        # The first to end need not be the one that made the others end.
        processes.wait(self._processes, NOTICE_S)
        return judge(self._codes())

    def _codes(self) -> dict[int, int]:
        """Exit codes of the workers that have ended, as shells count them."""
        codes = {}
        for index, process in enumerate(self._processes):
            code = process.poll()
            if code is not None:
                codes[index] = stopped_by(-code) if code < 0 else code
        return codes

    def _end_of(self, index: int) -> str:
        code = self._processes[index].returncode
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def free_ports(number: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    ports = []
    with contextlib.ExitStack() as held:
        for _ in range(number):
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(listener.getsockname()[1])
    return ports


def _show(process: "subprocess.Popen[str]", index: int) -> None:
    for line in process.stdout or ():
        sys.stdout.write(f"[worker {index}] {line}")
        sys.stdout.flush()
