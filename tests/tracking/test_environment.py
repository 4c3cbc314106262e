"""The recorded environment."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pipelines import config
from pipelines.commands import sweep, train
from pipelines.system import durable
from pipelines.tracking import environment
from pipelines.usage import UsageError


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with one commit."""
    root = tmp_path / "tree"
    (root / "pipelines").mkdir(parents=True)
    (root / "conf").mkdir()
    (root / "pipelines" / "a.py").write_text("one = 1\n")
    (root / ".gitignore").write_text("*.log\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def test_a_clean_tree_has_a_commit_and_no_difference(tree: Path) -> None:
    recorded = environment.source_tree(tree)
    assert recorded["commit"] == git(tree, "rev-parse", "HEAD").strip()
    assert (recorded["dirty"], recorded["diff"]) == (False, "")


def test_commit_and_difference_rebuild_the_tree(tree: Path, tmp_path: Path) -> None:
    (tree / "pipelines" / "a.py").write_text("one = 2\n")
    (tree / "conf" / "größe.yaml").write_text("new: 1\n")
    (tree / "conf" / "binary").write_bytes(bytes(range(256)))
    (tree / "conf" / "dos.yaml").write_bytes(b"a: 1\r\nb: 2\r\n")
    (tree / "conf" / "latin1.yaml").write_bytes("a: größe\n".encode("latin-1"))
    (tree / "pipelines" / "staged.py").write_text("x = 1\n")
    git(tree, "add", "pipelines/staged.py")
    recorded = environment.source_tree(tree)
    git(tree, "worktree", "add", "-q", str(tmp_path / "again"), recorded["commit"])
    patch = tmp_path / "diff.patch"
    durable.write_whole(patch, recorded["diff"])
    assert durable.read_text(patch) == recorded["diff"]
    git(tmp_path / "again", "apply", str(patch))
    for name in (
        "pipelines/a.py",
        "conf/größe.yaml",
        "conf/binary",
        "conf/dos.yaml",
        "conf/latin1.yaml",
        "pipelines/staged.py",
    ):
        assert (tmp_path / "again" / name).read_bytes() == (tree / name).read_bytes()


def test_describing_leaves_the_index_alone(tree: Path) -> None:
    (tree / "conf" / "new.yaml").write_text("new: 1\n")
    before = git(tree, "status", "--porcelain")
    environment.source_tree(tree)
    assert git(tree, "status", "--porcelain") == before == "?? conf/\n"


def test_ignored_and_foreign_files_stay_out(tree: Path) -> None:
    (tree / "conf" / "a.log").write_text("noise\n")
    (tree / "notes").write_text("mine\n")
    assert environment.source_tree(tree)["diff"] == ""


def test_outside_git_there_is_no_commit(tmp_path: Path) -> None:
    assert environment.source_tree(tmp_path)["commit"] is None


def test_a_folder_inside_another_repository_has_no_commit(tree: Path) -> None:
    assert environment.source_tree(tree / "conf")["commit"] is None


def test_packages_are_those_of_the_metadata() -> None:
    found: dict[str, str] = {}
    for item in metadata.distributions():  # The first of a name is the one that is imported.
        found.setdefault(environment.normal(item.metadata["Name"]), item.version)
    assert environment.packages() == sorted(f"{name}=={found[name]}" for name in found)
    assert environment.packages() == sorted(environment.packages())


def test_variables_that_change_results_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("SOME_PASSWORD", "secret")
    variables = environment.describe()["variables"]
    assert variables["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert "SOME_PASSWORD" not in variables


CHANGED = """
import sys
from pathlib import Path
from pipelines import config
from pipelines.tracking import environment
from pipelines.tracking.recording import Recorder
environment.at_start()
file = environment.ROOT / "conf" / "config.yaml"
file.write_text(file.read_text() + sys.argv[2])  # While data are built, say.
run_dir = Path(sys.argv[1])
Recorder(run_dir).begin(config.Config(data_dir="data", runs_dir="runs", run_dir=str(run_dir)))
"""


@pytest.mark.parametrize("edit", ["", "# made meanwhile\n"], ids=["left alone", "edited"])
def test_an_edit_made_after_the_start_is_not_recorded_as_the_code_that_ran(
    tmp_path: Path, edit: str
) -> None:
    root, run_dir = tmp_path / "house", tmp_path / "run"
    for name in environment.SOURCES:
        shutil.copytree(
            environment.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    command = [sys.executable, "-c", CHANGED, str(run_dir), edit]
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    recorded = json.loads((run_dir / "environment.json").read_text())["git"]
    assert recorded["commit"] == git(root, "rev-parse", "HEAD").strip()
    assert (recorded["dirty"], recorded["changed_meanwhile"], recorded["problem"]) == (
        False,
        bool(edit),
        None,
    )
    assert durable.read_text(run_dir / "diff.patch") == ""
    assert ("the source has changed since this process started" in done.stderr) == bool(edit)


def test_verbs_that_record_look_at_the_source_before_anything_else() -> None:
    for verb in (lambda: train.run(config.compose([])), lambda: sweep.main(["experiment=nothing"])):
        environment.at_start.cache_clear()
        with pytest.raises(UsageError):
            verb()
        assert environment.at_start.cache_info().currsize == 1
