"""Git, asked so that neither its user's settings nor the variables around us change what it answers."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pipelines.outside import reason

# Each changes bytes that are checked out, compared or applied. What belongs to the repository (.gitattributes) counts as it is.
SETTINGS = {
    "core.quotePath": "false",
    "core.autocrlf": "false",
    "core.eol": "lf",
    "core.safecrlf": "false",
    "core.attributesFile": os.devnull,
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.sparseCheckout": "false",
    "apply.whitespace": "nowarn",
    "apply.ignoreWhitespace": "no",
}
OURS = ("GIT_CONFIG", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM", "GIT_EXEC_PATH")
# `diff-index`, not `diff`: it heeds few settings, and these here are what is left.
PATCH = (
    "diff-index", "--patch", "--binary", "--full-index", "--unified=3", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames",
    "--no-relative", "--submodule=short", "--ignore-submodules=none", "--src-prefix=a/", "--dst-prefix=b/", f"-O{os.devnull}",
)  # fmt: skip


class GitError(RuntimeError):
    """Git is not there, or refuses; the message is its own last word, on one line."""


def run(
    at: Path, *arguments: str, text: str = "", variables: Mapping[str, str] | None = None
) -> str:
    """Returns what git prints in the folder `at`, told `text`; bytes that are not UTF-8 are kept as surrogates.

    Raises:
        GitError: git is not installed, or does not do it.
    """
    settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    # A hook or an alias that started us would have git work in another tree, or with another index.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(OURS)
    }
    try:
        done = subprocess.run(
            ["git", *settings, *arguments],
            cwd=at,
            env={**kept, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **(variables or {})},
            input=text.encode("utf-8", "surrogateescape"),
            capture_output=True,
        )
    except OSError as error:
        raise GitError(f"git: {reason(error)}") from None
    if done.returncode:
        words = done.stderr.decode("utf-8", "surrogateescape").strip()
        raise GitError(reason(words or f"git {arguments[0]} ended with {done.returncode}"))
    return done.stdout.decode("utf-8", "surrogateescape")
