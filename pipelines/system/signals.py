"""Signals that ask a process to stop: where stopping is safe they are raised, elsewhere they wait."""

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from pipelines.usage import stopped_by

STOPPING = (signal.SIGINT, signal.SIGTERM)
ECHO_S = 0.2  # One stop can arrive twice: by the process group, and passed on by make.


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to stop.

    A `KeyboardInterrupt`, and so no `Exception`: libraries wrap or swallow those (gin, imports that are tried), and let this pass.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum, self.exit_code = signum, stopped_by(signum)


class Interruption:
    """Turns SIGINT and SIGTERM into `Interrupted` where stopping is safe; a second signal stops at once.

    From `hold` until `release` a signal only leaves a mark, which `check` reads: between training steps the weights are
    half-way through an update. At any other time it is raised on the spot. They can be nested; the inner one hears the signals.

    Attributes:
        held: what a signal waits for, None where it is raised on the spot.
    """

    def __init__(self) -> None:
        self.held: str | None = None
        self._signum: int | None = None
        self._thrown: int | None = None  # what was raised on the spot
        self._previous: dict[int, Any] = {}
        self._heard = -1  # receives the numbers of signals at once
        self._told = (-1, -1)  # where they are sent, and where they were sent before
        self._hook = sys.unraisablehook
        self._resent = (
            0  # signals that we sent again; `_listen` must not take them for a second Ctrl-C
        )
        self._raised = False

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for signum in STOPPING:
                self._previous[signum] = signal.signal(signum, self._receive)
            self._heard, told = os.pipe()
            os.set_blocking(told, False)
            self._told = (told, signal.set_wakeup_fd(told, warn_on_full_buffer=False))
            threading.Thread(target=self._listen, daemon=True).start()
            self._hook, sys.unraisablehook = sys.unraisablehook, self._lost
            try:
                self._ask_outer()
            except Interrupted:
                self._put_back()
                raise
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_back()
        if self._thrown and error is not None and not isinstance(error, Interrupted):
            raise Interrupted(
                self._thrown
            ) from error  # A library on the way has raised another error for it.

    def hold(self, reason: str) -> None:
        """From here on a signal waits for `check` or `release`; `reason` ends the sentence "stopping after …"."""
        self.held = reason

    def release(self) -> None:
        """From here on a signal is raised on the spot; one that has waited, now."""
        self.held = None
        Interruption.check(self)

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self._signum is not None:
            self._raised = True
            raise Interrupted(self._signum)

    def _ask_outer(self) -> None:
        """Raises what the interruption around this one has raised already, and somebody has swallowed."""
        for handler in self._previous.values():
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, Interruption):
                Interruption.check(outer)

    def _put_back(self) -> None:
        if not self._previous:
            return
        sys.unraisablehook = self._hook
        signal.set_wakeup_fd(self._told[1])
        os.close(self._told[0])
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _listen(self) -> None:
        """Hears signals while TensorFlow computes a block of steps; Python calls `_receive` only when the block ends."""
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
                    if self.held:
                        print(
                            f"\nstopping after {self.held}; once more stops at once",
                            file=sys.stderr,
                            flush=True,
                        )
                elif time.monotonic() - first > ECHO_S:
                    os._exit(stopped_by(number[0]))

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        again, self._signum = self._signum, signum
        if not (again or self.held):
            self._thrown = signum
            raise Interrupted(signum)

    def _lost(self, error: Any) -> None:
        """Raises again what Python dropped: exceptions in a destructor are lost, and destructors often run when a long call ends."""
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
