"""The source tree of a recorded run, laid out again beside the user's own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.system import git
from pipelines.system.processes import ROOT
from pipelines.usage import UsageError


@contextmanager
def checked_out(commit: str | None, diff: str) -> Iterator[Path]:
    """Yields a separate work tree of `commit` with `diff` applied; removed on leaving. The user's own is never touched.

    Raises:
        UsageError: the run was not made in a git checkout, its commit is not here, or the changes do not apply.
    """
    if not commit:
        raise UsageError(
            "run: its code is not recorded (environment.json, under `git`, may say why); compare with: make compare"
        )
    try:
        git.run(ROOT, "cat-file", "-e", f"{commit}^{{commit}}")
    except git.GitError as error:
        raise UsageError(
            f"run: its commit {commit[:12]} is not in this clone ({error}); fetch it first: git fetch --all"
        ) from None
    with tempfile.TemporaryDirectory(prefix="trellis-tree-") as parent:
        tree = Path(parent, "tree")
        try:
            _lay_out(tree, commit, diff)
            yield tree
        finally:
            _remove(tree)


def _lay_out(tree: Path, commit: str, diff: str) -> None:
    try:
        git.run(ROOT, "worktree", "add", "--detach", "--quiet", str(tree), commit)
    except git.GitError as error:
        raise UsageError(f"run: git could not check out {commit[:12]}: {error}") from None
    try:
        if diff:
            git.run(tree, "apply", "--binary", "-", text=diff)
    except git.GitError as error:
        raise UsageError(f"run: the recorded changes do not apply: {error}") from None


def _remove(tree: Path) -> None:
    with suppress(git.GitError):  # It was never made; the folder around it goes anyway.
        git.run(ROOT, "worktree", "remove", "--force", str(tree))
