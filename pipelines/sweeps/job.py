"""A training in its own process, which ends when the sweep does and resumes where it stopped."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from pipelines.system import processes

OUTPUT = "output.log"  # in the run directory: what the process printed
MOST_OUTPUT = 8192  # bytes that are looked at, from the end
MOST_REASON = 300  # characters


class Job:
    """One process that trains, under way or over."""

    def __init__(self, overrides: Sequence[str], folder: Path) -> None:
        """Starts it; what it prints goes to a file in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        command, environment = processes.this_tool("train", *overrides)
        self._file = folder / OUTPUT
        with self._file.open("ab") as output:
            self._begin = output.tell()  # Before it lies the output of earlier sessions.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C on the terminal is for the sweep, which passes it on.
                preexec_fn=processes.end_with(os.getpid()),
            )
        self._started = time.monotonic()

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll()

    def seconds(self) -> float:
        """The time since it started."""
        return round(time.monotonic() - self._started, 1)

    def output(self) -> str:
        """The end of what it has printed."""
        with self._file.open("rb") as output:
            size = output.seek(0, os.SEEK_END)
            output.seek(max(self._begin, size - MOST_OUTPUT))
            return output.read().decode(errors="replace")

    def progress(self) -> str:
        """The last step that it has printed."""
        steps = re.findall(r"step (\d+/\d+)", self.output())
        return steps[-1] if steps else "starting"

    def reason(self, code: int, failure: str | None) -> str:
        """Why it failed, in one line.

        Args:
            code: its exit code.
            failure: what its summary says.
        """
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}; out of memory?" if name == "SIGKILL" else f"killed by {name}"
        lines = [line.strip() for line in self.output().splitlines()]
        told = [line.removeprefix("trellis: ") for line in lines if line.startswith("trellis: ")]
        last = [line for line in lines if line][-1:]
        reasons = [
            *told[-1:],
            failure,
            *last,
            f"exit code {code}",
        ]
        return next(filter(None, reasons))[:MOST_REASON]


def stop(jobs: Sequence[Job]) -> None:
    """Asks jobs to save and end, and waits for them; those that do not are killed."""
    processes.stop([job.process for job in jobs])
