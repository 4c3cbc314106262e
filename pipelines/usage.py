"""What a command answers: its exit code, the error shown without a traceback, the nearest name that would do, what to type next."""

import difflib
import enum
import shlex
from collections.abc import Sequence

# They part paths, or mean something to a shell or a pattern.
NOT_IN_NAMES = frozenset("/\\:*?[]{}<>|\"'$`")
MOST_NAMES = 20  # that a message lists
LONGEST_NAME = 120  # bytes; with what is added to it, a file system takes 255
# Variables of the Makefile, by the override that each stands for.
VARIABLES = {
    "experiment": "EXP",
    "dataset": "DATA",
    "runtime": "RUNTIME",
    "sweep": "SWEEP",
    "run": "RUN",
    "seeds": "SEEDS",
    "bundle": "BUNDLE",
    "checkpoint": "CKPT",
}


class ExitCode(enum.IntEnum):
    """What the exit code of every command says; docs/faults.md shows the same table."""

    DONE = 0
    FAILED = 1
    REFUSED = 2
    UNDECIDED = 3
    IN_USE = 69  # sysexits.h: unavailable
    PEER_GONE = 75  # sysexits.h: a temporary failure


def stopped_by(signum: int) -> int:
    """The exit code of a command that the signal `signum` has stopped, as shells count it."""
    return 128 + signum


class UsageError(ValueError):
    """An error that the user can correct; the message says what and how, and is shown without a traceback."""

    exit_code = ExitCode.REFUSED


class InUse(UsageError):
    """Another process holds what this command needs; the same command may succeed later."""

    exit_code = ExitCode.IN_USE


def nearest(word: str, names: Sequence[str]) -> str:
    """Ends an error message: the closest of the names, or all of them when there are few."""
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {', '.join(near)}?"
    if not 0 < len(names) <= MOST_NAMES:
        return ""
    return f"; there are: {', '.join(sorted(names))}"


def make_command(verb: str, overrides: Sequence[str]) -> str:
    """The command, as it can be typed, that gives `verb` these overrides."""
    words: list[str] = []
    rest: list[str] = []
    for text in overrides:
        name, _, value = text.partition("=")
        if name in VARIABLES and shlex.quote(value) == value:
            words.append(f"{VARIABLES[name]}={value}")
        else:
            rest.append(shlex.quote(text))
    if rest:
        # What the shell reads inside double quotes; Make reads $$ as a dollar.
        arguments = " ".join(rest).replace("\\", "\\\\").replace('"', '\\"')
        arguments = arguments.replace("$", "\\$\\$")
        words.append(f'ARGS="{arguments}"')
    return " ".join(["make", verb, *words])


def file_name(word: str, what: str) -> str:
    """Returns a word from outside that may be (part of) the name of a file or folder of ours.

    Every path below `data_dir` and `runs_dir` that is made from a word of the user, of data or of a recorded run goes
    through here, so that none leads out of its folder.

    Args:
        what: what the word is, for the message: `dataset.name`.

    Raises:
        UsageError: it is empty, starts with a dot, is too long, or has a character that no such name may have.
    """
    reason = _unfit(word)
    if reason:
        raise UsageError(
            f"{what}: {word[:60]!r} cannot be part of a file's name: {reason}; choose another"
        )
    return word


def _unfit(word: str) -> str:
    if not word or word.startswith("."):
        return "it starts with a dot" if word else "it is empty"
    if not word.isprintable():
        return "it has control characters, or is no text"
    unfit = sorted(NOT_IN_NAMES & set(word))
    if unfit:
        return f"it has {' '.join(unfit)}"
    if len(word.encode()) > LONGEST_NAME:
        return f"it has more than {LONGEST_NAME} bytes"
    return ""
