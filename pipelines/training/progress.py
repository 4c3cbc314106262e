"""Shows a training as it goes: a live bar on a terminal, plain lines elsewhere; what libraries print goes to a file."""

import contextlib
import functools
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn


class Meter:
    """Keeps time of training and evaluation apart, and shows step, rate, time left and loss."""

    def __init__(self, total: int, evaluations: int, stream: TextIO) -> None:
        self.total = total
        self.evaluations = evaluations
        self.seconds = {"train": 0.0, "evaluate": 0.0}
        self.steps_per_second = 0.0  # over the whole run, as reported at its end
        self._recent = 0.0  # as shown on the way
        self._steps_timed = 0
        self._time_timed = 0.0
        self._evaluated = 0
        self._since: float | None = None
        self._step = 0
        self._first = True
        self._stream = stream
        console = Console(file=stream)
        self._live: Progress | None = None
        if console.is_terminal:
            self._live = Progress(
                TextColumn("[progress.description]{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._bar = self._live.add_task("training", total=total, note="")

    def start(self, step: int) -> None:
        """Starts the clock at a global step."""
        self._step = step
        self._since = time.monotonic()
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
        elapsed = now - (self._since or now)
        steps = step - self._step
        self._since = now
        self._step = step
        self.seconds["train"] += elapsed
        if not self._first and elapsed > 0:  # The first block holds the tracing of the graph.
            self._steps_timed += steps
            self._time_timed += elapsed
            self.steps_per_second = self._steps_timed / self._time_timed
            rate = steps / elapsed
            self._recent = 0.8 * (self._recent or rate) + 0.2 * rate
        self._first = False
        loss = values.get("training_loss", values.get("total_loss", float("nan")))
        eta = self._left()
        note = f"{self._rate()}  ETA {eta}  loss {loss:.4f}"
        if self._live:
            self._live.update(
                self._bar,
                completed=step,
                note=f"step {step}/{self.total}  {note}",
            )
        else:
            self.say(f"step {step}/{self.total}  {note}")

    def prepared_to_evaluate(self) -> None:
        """Counts the time since the last block of steps to the evaluations."""
        now = time.monotonic()
        self.seconds["evaluate"] += now - (self._since or now)
        self._since = now

    def evaluating(self) -> None:
        """Takes note that an evaluation begins."""
        self._since = time.monotonic()
        if self._live:
            self._live.update(self._bar, description="evaluating")

    def evaluated(self) -> None:
        """Takes note that an evaluation has ended."""
        now = time.monotonic()
        self.seconds["evaluate"] += now - (self._since or now)
        self._since = now
        self._evaluated += 1
        if self._live:
            self._live.update(self._bar, description="training")

    def _rate(self) -> str:
        return f"{self._recent:.2f} steps/s" if self._recent else "- steps/s"

    def _left(self) -> str:
        if not self._recent:
            return "-"
        seconds = (self.total - self._step) / self._recent
        if self._evaluated:
            each = self.seconds["evaluate"] / self._evaluated
            seconds += each * max(0, self.evaluations - self._evaluated)
        minutes, seconds = divmod(int(seconds), 60)
        return f"{minutes}:{seconds:02d}"


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Sends what Orbit, TensorFlow and the evaluators print to a file, and leaves the terminal to the meter."""
    logger = tf.get_logger()
    before = logger.handlers
    is_propagating = logger.propagate
    logger.propagate = False  # A handler of another logger would show it all the same.
    with open(log, "a", buffering=1) as stream, contextlib.redirect_stdout(stream):
        # One of its own: a logger that has none at all prints to the terminal.
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
        others = [other for other in before if not isinstance(other, logging.StreamHandler)]
        logger.handlers = [*others, handler]
        shown = warnings.showwarning
        warnings.showwarning = functools.partial(_write_warning, stream)
        try:
            yield
        finally:
            warnings.showwarning = shown
            logger.handlers = before
            logger.propagate = is_propagating


def _write_warning(stream: TextIO, *said: Any) -> None:
    """What Python does with a warning, but for where it goes.

    Args:
        said: message, category, file, line number, and what else `warnings.showwarning` is given.
    """
    stream.write(warnings.formatwarning(*said[:4]))
