"""The console command: trellis <verb> [hydra overrides]; imports the one verb asked for.

A verb has `main(overrides)`, which takes them as they were written and returns the exit code.
"""

import ast
import importlib
import sys
from pathlib import Path

from pipelines.outside import redacted, told
from pipelines.system.signals import Interrupted, Interruption
from pipelines.usage import UsageError, nearest

VERBS = Path(__file__).parent / "commands"


def verbs() -> dict[str, str]:
    """Every verb with the first line of its docstring, read without importing it."""
    files = sorted(file for file in VERBS.glob("*.py") if file.stem != "__init__")
    return {file.stem: ast.get_docstring(ast.parse(file.read_text())) or "" for file in files}


def main() -> None:
    """Runs one verb; leaves with its exit code."""
    sys.excepthook = _tell
    known = verbs()
    verb, *overrides = sys.argv[1:] or ["--help"]
    if verb in ("-h", "--help", "help"):
        print("usage: trellis <verb> [key=value ...]\n")
        for name, doc in known.items():
            print(f"  {name:<11} {doc.splitlines()[0]}")
        print(
            "\ntrellis <verb> --help says more about one of them; trellis list shows what experiment= and dataset= accept."
        )
        return
    try:
        if verb not in known:
            raise UsageError(f"no verb {verb!r}{nearest(verb, list(known))}\nall of them: trellis")
        if {"-h", "--help"} & set(overrides):
            print(known[verb])
            return
        with Interruption():
            code = importlib.import_module(f"pipelines.commands.{verb}").main(overrides)
        sys.exit(code)
    except Interrupted as stop:
        print(f"interrupted ({stop})", file=sys.stderr)
        sys.exit(stop.exit_code)
    except UsageError as error:
        print(f"trellis: {redacted(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)


def _tell(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Prints what nobody foresaw, as Python would, without the passwords that other programs put into their errors."""
    print(told(error), end="", file=sys.stderr)


if __name__ == "__main__":
    main()
