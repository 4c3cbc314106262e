"""The recorded source is laid out again byte by byte, whatever its user has set for git."""

import os
import subprocess
from pathlib import Path

import pytest

from pipelines.reproduction import worktree
from pipelines.tracking import environment
from pipelines.usage import UsageError

SETTINGS = {
    "nothing": "",
    "no prefix": "[diff]\nnoprefix = true",
    "mnemonic prefix": "[diff]\nmnemonicPrefix = true",
    "whitespace is an error": "[apply]\nwhitespace = error",
    "whitespace is fixed": "[apply]\nwhitespace = fix\n[core]\nwhitespace = trailing-space,blank-at-eof,tab-in-indent",
    "whitespace is ignored": "[apply]\nignoreWhitespace = change",
    "line ends of Windows": "[core]\nautocrlf = true",
    "line ends of Windows, checked": "[core]\nautocrlf = true\nsafecrlf = true",
    "line ends on the way in": "[core]\nautocrlf = input\nsafecrlf = true",
    "all is text": "[core]\nattributesFile = {home}/text\neol = crlf",
    "converted to text": '[core]\nattributesFile = {home}/converted\n[diff "upper"]\ntextconv = tr a-z A-Z <',
    "another program compares": "[diff]\nexternal = /bin/false",
    "colours": "[color]\nui = always\ndiff = always",
    "no context": "[diff]\ncontext = 0\ninterHunkContext = 9",
    "copies": "[diff]\nrenames = copies\nalgorithm = patience\nsuppressBlankEmpty = true\nrelative = true",
    "order": "[diff]\norderFile = /nowhere",
    "hooks": "[core]\nhooksPath = {home}/hooks",
    "sparse": "[core]\nsparseCheckout = true\nfsmonitor = /bin/false",
}
VARIABLES = {
    "GIT_DIFF_OPTS": "-u0",
    "GIT_EXTERNAL_DIFF": "/bin/false",
    "GIT_DIR": "/nowhere",
    "GIT_INDEX_FILE": "/nowhere/index",
}
FILES = {
    "conf/unix.yaml": b"one: 1\ntwo: 2 \n\tthree: 3\n\n",
    "conf/dos.yaml": b"one: 1\r\ntwo: 2\r\n",
    "conf/mixed.yaml": b"one: 1\r\ntwo: 2\n",
    "conf/latin1.yaml": "name: größe\n".encode("latin-1"),
    "conf/größe.yaml": "name: größe\n".encode(),
    "conf/no_end.yaml": b"one: 1",
    "conf/blanks.yaml": b"one: 1  \n  \n\n\n",
    "pipelines/binary": bytes(range(256)) * 3,
}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def configure(home: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `text` the user's own settings of git."""
    home.mkdir(exist_ok=True)
    (home / "text").write_text("* text\n")
    (home / "converted").write_text("*.yaml diff=upper\n")
    (home / "hooks").mkdir(exist_ok=True)
    hook = home / "hooks" / "post-checkout"
    hook.write_text("#!/bin/sh\necho noise > conf/noise.yaml\nexit 1\n")
    hook.chmod(0o755)
    (home / "gitconfig").write_text(text.format(home=home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree with one commit, every kind of file in it."""
    configure(tmp_path / "home", "", monkeypatch)
    root = tmp_path / "tree"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "conf" / "gone.yaml").write_text("gone: 1\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    monkeypatch.setattr(worktree, "ROOT", root)
    return root


def change(root: Path) -> None:
    """Changes every file, and brings a new one like each."""
    for name, content in FILES.items():
        changed = content[::-1] if b"\0" in content else content.replace(b"1", b"one and more")
        (root / name).write_bytes(changed if changed != content else content + content)
        (root / name).with_name(f"new_{Path(name).name}").write_bytes(content)
    (root / "conf" / "gone.yaml").unlink()
    (root / "conf" / "staged.yaml").write_text("staged: 1\n")
    git(root, "add", "conf/staged.yaml")


def contents(root: Path) -> dict[str, bytes]:
    """The files of a tree, without git's own."""
    files = [
        path
        for path in root.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(root).parts
    ]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.mark.parametrize("text", SETTINGS.values(), ids=SETTINGS)
def test_the_source_is_rebuilt_under_any_setting(
    tree: Path, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(tree)
    index = (tree / ".git" / "index").read_bytes()
    configure(tmp_path / "home", text, monkeypatch)
    recorded = environment.source_tree(tree)
    with worktree.checked_out(recorded["commit"], recorded["diff"]) as again:
        assert contents(again) == contents(tree)
    assert (tree / ".git" / "index").read_bytes() == index
    assert not again.exists()


@pytest.mark.parametrize("name", VARIABLES)
def test_the_source_is_rebuilt_under_any_variable(
    tree: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(tree)
    monkeypatch.setenv(name, VARIABLES[name])
    recorded = environment.source_tree(tree)
    with worktree.checked_out(recorded["commit"], recorded["diff"]) as again:
        assert contents(again) == contents(tree)


def test_a_tree_that_was_checked_out_with_other_line_ends_is_rebuilt(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path / "home", "[core]\nautocrlf = true", monkeypatch)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(tree), str(clone))
    assert (clone / "conf" / "unix.yaml").read_bytes().startswith(b"one: 1\r\n")
    git(clone, "status")
    recorded = environment.source_tree(clone)
    configure(tmp_path / "home", "", monkeypatch)
    with worktree.checked_out(recorded["commit"], recorded["diff"]) as again:
        assert contents(again) == contents(clone)


def test_a_change_that_git_was_told_to_overlook_is_recorded(tree: Path) -> None:
    git(tree, "update-index", "--assume-unchanged", "conf/unix.yaml")
    (tree / "conf" / "unix.yaml").write_text("changed: 1\n")
    assert "+changed: 1" in environment.source_tree(tree)["diff"]


def test_code_that_is_not_recorded_or_not_here_is_refused(tree: Path) -> None:
    with (
        pytest.raises(UsageError, match="run: its code is not recorded"),
        worktree.checked_out(None, ""),
    ):
        pass
    with pytest.raises(UsageError, match="git fetch --all"), worktree.checked_out("0" * 40, ""):
        pass
    commit = git(tree, "rev-parse", "HEAD").strip()
    with (
        pytest.raises(UsageError, match="the recorded changes do not apply: error"),
        worktree.checked_out(commit, "diff --git a/x b/x\n@@"),
    ):
        pass
    assert git(tree, "worktree", "list").count("\n") == 1


@pytest.mark.parametrize("what", ["owner", "settings"])
def test_where_git_refuses_the_reason_is_recorded(tree: Path, what: str) -> None:
    if what == "settings":
        (tree / ".git" / "config").write_text("[[[\n")
    elif os.geteuid():
        pytest.skip("only root can give a folder away")
    else:
        os.chown(tree, 12345, 12345)
    recorded = environment.source_tree(tree)
    assert recorded["commit"] is None and recorded["diff"] == ""
    assert {"owner": "dubious ownership", "settings": "bad config"}[what] in recorded["problem"]
    assert "\n" not in recorded["problem"]
