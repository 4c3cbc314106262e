"""What can stop a training: a signal, a loss that is not finite, a disk. Each leaves a checkpoint to go on from."""

import signal
import threading
from collections.abc import Mapping
from types import FrameType, TracebackType

import numpy as np


class Interrupted(Exception):
    """A signal asked the run to stop; the newest checkpoint holds everything done so far."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class NotFinite(Exception):
    """A training loss became NaN or infinite; the weights are lost since the last good checkpoint."""


class NotSaved(Exception):
    """A checkpoint could not be saved; those before it are whole."""


class Interruption:
    """Turns SIGINT and SIGTERM into `Interrupted` where stopping is safe; a second signal stops at once.

    Between training steps the weights are half-way through an update, so there the signal only leaves a mark that
    `check` reads; anywhere else it is raised on the spot.
    """

    def __init__(self) -> None:
        self.training = False
        self._signum: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.SIG_DFL)
        self._signum = signum
        if not self.training:
            raise Interrupted(signum)

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self._signum is not None:
            raise Interrupted(self._signum)


def refuse_not_finite(losses: Mapping[str, float], steps: range, last_good: str | None) -> None:
    """Raises `NotFinite` naming the offending terms, the step or steps they arose in and the checkpoint before them."""
    offending = [f"{name}={value}" for name, value in losses.items() if not np.isfinite(value)]
    if offending:
        where = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
        raise NotFinite(
            f"{', '.join(offending)} in {where}; last good checkpoint: {last_good or 'none'}; "
            f"a lower learning rate (trainer.optimizer_config) or warm-up is the usual mend"
        )
