"""Shows a sweep as it goes: a live table on a terminal, one line an event elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipelines.sweeps.trial import Trial

REFRESH_S = 1.0
ORDER = {"running": 0, "interrupted": 1, "failed": 2, "finished": 3, "waiting": 4}


class Display:
    """Where the user sees what each trial does."""

    def __init__(self, goal: str, stream: TextIO = sys.stdout) -> None:
        """Chooses by what `stream` is."""
        self._console = Console(file=stream)
        self._live: Live | None = None
        if self._console.is_terminal:
            # Refreshed by the sweep itself: with a thread beside it, starting processes would not be safe.
            self._live = Live(console=self._console, auto_refresh=False)
        self._goal = goal
        self._stream = stream
        self._shown = 0.0
        self._trials: Sequence[Trial] = ()

    def __enter__(self) -> "Display":
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)
            self._live.__exit__(kind, error, trace)

    def changed(self, trial: Trial) -> None:
        """Says what became of a trial."""
        if self._live:
            self._shown = 0.0
        else:
            print(
                f"trial {trial.label}: {_outcome(trial)}",
                file=self._stream,
                flush=True,
            )

    def refresh(self, every: Sequence[Trial]) -> None:
        """Redraws the table when it is time."""
        self._trials = every
        if self._live and time.monotonic() - self._shown >= REFRESH_S:
            self._live.update(self._table(), refresh=True)
            self._shown = time.monotonic()

    def _table(self) -> Table:
        sign = -1 if self._goal == "maximize" else 1
        ordered = sorted(
            self._trials, key=lambda trial: (ORDER[trial.state], sign * (trial.value or 0))
        )
        counts = Counter(trial.state for trial in self._trials)
        told = [f"{counts[state]} {state}" for state in ORDER if counts[state]]
        table = Table(
            "trial",
            "state",
            caption=", ".join(told),
            expand=False,
        )
        rows = max(3, self._console.height - 6)
        for trial in ordered[:rows]:
            state = trial.job.progress() if trial.job else _outcome(trial)
            # As they are: brackets are no markup here.
            table.add_row(Text(trial.label), Text(state))
        return table


def _outcome(trial: Trial) -> str:
    if trial.state == "finished":
        when = "(earlier)" if trial.earlier else f"in {trial.seconds:.0f} s"
        return f"{trial.metric} {trial.value:.4f} {when}"
    if trial.state == "failed":
        return f"failed: {trial.reason}"
    return "started" if trial.state == "running" else trial.state
