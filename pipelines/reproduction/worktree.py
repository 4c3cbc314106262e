"""The source tree of a recorded run, laid out again beside the user's own."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pipelines
from pipelines.usage import UsageError

ROOT = Path(pipelines.__file__).resolve().parent.parent


@contextmanager
def checked_out(commit: str | None, diff: str) -> Iterator[Path]:
    """Yields a separate work tree of `commit` with `diff` applied; removed on leaving. The user's own is never touched.

    Raises:
        UsageError: the run was not made in a git checkout, its commit is not here, or the changes do not apply.
    """
    if not commit:
        raise UsageError("run: was not made in a git checkout, so its code is not recorded; compare with: make compare")
    if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise UsageError(f"run: its commit {commit[:12]} is not in this clone; fetch it first: git fetch --all")
    with tempfile.TemporaryDirectory(prefix="trellis-tree-") as parent:
        tree = Path(parent, "tree")
        added = _git("worktree", "add", "--detach", "--quiet", str(tree), commit)
        if added.returncode:
            raise UsageError(f"run: git could not check out {commit[:12]}: {added.stderr.strip()}")
        try:
            if diff:
                applied = _git("apply", "--binary", "-", at=tree, text=diff)
                if applied.returncode:
                    raise UsageError(f"run: the recorded changes do not apply: {applied.stderr.strip()[:300]}")
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str, at: Path = ROOT, text: str | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["git", *arguments], cwd=at, input=text, capture_output=True, text=True, errors="surrogateescape"
    )  # fmt: skip
