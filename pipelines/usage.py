"""What a command answers: its exit code, the error shown without a traceback, the nearest name that would do."""

import difflib
import enum
from collections.abc import Sequence


class ExitCode(enum.IntEnum):
    """What the exit code of every command says; docs/faults.md shows the same table."""

    DONE = 0
    FAILED = 1
    REFUSED = 2
    RESCALED = 3
    IN_USE = 69  # sysexits.h: unavailable
    PEER_GONE = 75  # sysexits.h: a temporary failure


def stopped_by(signum: int) -> int:
    """The exit code of a command that the signal `signum` has stopped, as shells count it."""
    return 128 + signum


class UsageError(ValueError):
    """Something the user can put right; the message says what and how, and is shown without a traceback."""

    exit_code = ExitCode.REFUSED


class InUse(UsageError):
    """Another process holds what this command needs; the same command may succeed later."""

    exit_code = ExitCode.IN_USE


def nearest(word: str, known: Sequence[str]) -> str:
    """Ends an error message: the closest of the known names, or all of them when there are few."""
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {', '.join(near)}?"
    return f"; there are: {', '.join(sorted(known))}" if 0 < len(known) <= 20 else ""
