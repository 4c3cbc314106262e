"""The console command: trellis <verb> [hydra overrides]; imports the one verb asked for.

A verb has `main(overrides)`, which takes them as they were written and returns the exit code.
"""

import ast
import importlib
import os
import select
import signal
import sys
from pathlib import Path

from pipelines.outside import redacted, told
from pipelines.system.signals import Interrupted, Interruption
from pipelines.usage import UsageError, nearest

VERBS = Path(__file__).parent / "commands"


def verbs() -> dict[str, str]:
    """Every verb with the first line of its docstring, read without importing it."""
    docstrings = {}
    for file in sorted(VERBS.glob("*.py")):
        if file.stem != "__init__":
            tree = ast.parse(file.read_text())
            docstrings[file.stem] = ast.get_docstring(tree) or ""
    return docstrings


def main() -> None:
    """Runs one verb; leaves with its exit code."""
    sys.excepthook = _tell
    try:
        try:
            _run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _is_unread():
            raise
        # As in `trellis list | head`. What is left in the buffer is written at exit, where nobody reads either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _is_unread() -> bool:
    """Whether who read our standard output has gone."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _run() -> None:
    """Runs the verb that was typed."""
    docstrings = verbs()
    verb, *overrides = sys.argv[1:] or ["--help"]
    if verb in ("-h", "--help", "help"):
        print("usage: trellis <verb> [key=value ...]\n")
        for name, text in docstrings.items():
            headline, *_ = text.splitlines()
            print(f"  {name:<11} {headline}")
        print(
            "\ntrellis <verb> --help says more about one of them; trellis list shows what experiment= and dataset= accept."
        )
        return
    try:
        if verb not in docstrings:
            hint = nearest(verb, list(docstrings))
            raise UsageError(f"no verb {verb!r}{hint}\nall of them: trellis")
        if {"-h", "--help"} & set(overrides):
            print(docstrings[verb])
            return
        with Interruption():
            command = importlib.import_module(f"pipelines.commands.{verb}")
            code = command.main(overrides)
        sys.exit(code)
    except Interrupted as stop:
        print(f"interrupted ({stop})", file=sys.stderr)
        sys.exit(stop.exit_code)
    except UsageError as error:
        print(
            f"trellis: {redacted(str(error))}",
            file=sys.stderr,
        )
        sys.exit(error.exit_code)


def _tell(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Prints what nobody foresaw, as Python would, without the passwords that other programs put into their errors."""
    print(told(error), end="", file=sys.stderr)


if __name__ == "__main__":
    main()
