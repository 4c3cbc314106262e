"""What can stop a training: a signal, a loss that is not finite, a disk. Each leaves a checkpoint to go on from."""

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any

import numpy as np

from pipelines.usage import stopped_by

STOPPING = (signal.SIGINT, signal.SIGTERM)
ECHO_S = 0.2  # One stop can arrive twice: by the process group, and passed on by make.


class Interrupted(Exception):
    """A signal asked the run to stop; the newest checkpoint holds everything done so far."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = stopped_by(signum)


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
        self._heard = -1  # where the numbers of signals arrive, as soon as they come
        self._told = (-1, -1)  # where they are sent, and where they were sent before
        self._hook = sys.unraisablehook
        self._resent = 0  # signals of our own that `_listen` has yet to hear, and not to count
        self._raised = False

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for signum in STOPPING:
                self._previous[signum] = signal.signal(signum, self._receive)
            self._heard, told = os.pipe()
            os.set_blocking(told, False)
            self._told = (told, signal.set_wakeup_fd(told, warn_on_full_buffer=False))
            threading.Thread(target=self._listen, daemon=True).start()
            sys.unraisablehook = self._lost
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._previous:
            sys.unraisablehook = self._hook
            signal.set_wakeup_fd(self._told[1])
            os.close(self._told[0])
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def _listen(self) -> None:
        """Hears signals while TensorFlow computes a block of steps, at whose end only Python would call `_receive`."""
        with open(self._heard, "rb", buffering=0) as heard:
            first = None
            while number := heard.read(1):
                if number[0] not in STOPPING:
                    continue
                if self._resent:
                    self._resent -= 1
                    continue
                if first is None:
                    first = time.monotonic()
                    if self.training:
                        print("\nstopping after this block of steps, with a checkpoint; once more stops at once", file=sys.stderr, flush=True)
                elif time.monotonic() - first > ECHO_S:
                    os._exit(stopped_by(number[0]))

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        again, self._signum = self._signum, signum
        if not (again or self.training):
            raise Interrupted(signum)

    def _lost(self, error: Any) -> None:
        """Python drops what is raised while it takes an object away, and often does that when a long call has ended."""
        if isinstance(error.exc_value, Interrupted):
            threading.Timer(0.02, self._raise_again).start()
        else:
            self._hook(error)

    def _raise_again(self) -> None:
        signum = self._signum
        if signum is not None and not self._raised:
            self._signum = None
            self._resent += 1
            signal.pthread_kill(threading.main_thread().ident or 0, signum)

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self._signum is not None:
            self._raised = True
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
