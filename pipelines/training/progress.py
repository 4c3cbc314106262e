"""Shows a training as it goes: a live bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn


class Meter:
    """Keeps time of training and evaluation apart, and shows step, rate, time left and loss."""

    def __init__(self, total: int, evaluations: int, stream: TextIO) -> None:
        self.total, self.evaluations = total, evaluations
        self.seconds = {"train": 0.0, "evaluate": 0.0}
        self.steps_per_second = 0.0  # over the whole run, as reported at its end
        self._recent = 0.0  # as shown on the way
        self._steps_timed, self._time_timed, self._evaluated = 0, 0.0, 0
        self._since: float | None = None
        self._step = 0
        self._first = True
        console = Console(file=stream)
        columns = (
            "[progress.description]{task.description}",
            BarColumn(),
            TaskProgressColumn(),
            "{task.fields[note]}",
        )
        self._live = (
            Progress(
                *(TextColumn(one) if isinstance(one, str) else one for one in columns),
                console=console,
                transient=False,
            )
            if console.is_terminal
            else None
        )
        self._bar = self._live.add_task("training", total=total, note="") if self._live else None
        self._stream = stream

    def start(self, step: int) -> None:
        """Starts the clock at a global step."""
        self._step, self._since = step, time.monotonic()
        if self._live:
            self._live.start()

    def stop(self) -> None:
        """Leaves the terminal as it was."""
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Prints one line, above the bar where there is one."""
        if self._live and self._live.live.is_started:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self._stream, flush=True)

    def trained(self, step: int, values: Mapping[str, float]) -> None:
        """Takes note of a block of training steps."""
        now = time.monotonic()
        elapsed, steps = now - (self._since or now), step - self._step
        self._since, self._step = now, step
        self.seconds["train"] += elapsed
        if not self._first and elapsed > 0:  # The first block holds the tracing of the graph.
            self._steps_timed += steps
            self._time_timed += elapsed
            self.steps_per_second = self._steps_timed / self._time_timed
            self._recent = 0.8 * (self._recent or steps / elapsed) + 0.2 * steps / elapsed
        self._first = False
        loss = values.get("training_loss", values.get("total_loss", float("nan")))
        note = f"{self._rate()}  ETA {self._left()}  loss {loss:.4f}"
        if self._live and self._bar is not None:
            self._live.update(self._bar, completed=step, note=f"step {step}/{self.total}  {note}")
        else:
            self.say(f"step {step}/{self.total}  {note}")

    def evaluating(self) -> None:
        """Takes note that an evaluation begins."""
        self._since = time.monotonic()
        if self._live and self._bar is not None:
            self._live.update(self._bar, description="evaluating")

    def evaluated(self) -> None:
        """Takes note that an evaluation has ended."""
        now = time.monotonic()
        self.seconds["evaluate"] += now - (self._since or now)
        self._since = now
        self._evaluated += 1
        if self._live and self._bar is not None:
            self._live.update(self._bar, description="training")

    def _rate(self) -> str:
        return f"{self._recent:.2f} steps/s" if self._recent else "- steps/s"

    def _left(self) -> str:
        if not self._recent:
            return "-"
        each = self.seconds["evaluate"] / self._evaluated if self._evaluated else 0.0
        left = (self.total - self._step) / self._recent + each * max(
            0, self.evaluations - self._evaluated
        )
        return f"{int(left) // 60}:{int(left) % 60:02d}"
