"""A process's own temporary folder: there while it lives, gone afterwards, and nobody else's is touched."""

import os
import subprocess
import sys
import tempfile
import typing
from pathlib import Path

import pytest

from pipelines.config import Config
from pipelines.training import process

ROOT = Path(__file__).parent.parent.parent
CODE = """
import sys, tempfile
from pathlib import Path
from pipelines.config import Config
from pipelines.training import process

with process.prepared(Config(), Path(sys.argv[1])):
    print(tempfile.mkdtemp(), flush=True)
    sys.stdin.read()
with tempfile.TemporaryDirectory() as other:  # As a later step of the same command makes one.
    print(other, flush=True)
"""


@pytest.fixture
def running(tmp_path):
    """A process that has prepared itself in `tmp_path / "run"`, and its temporary folder."""
    command = [sys.executable, "-c", CODE, str(tmp_path / "run")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as child:
        yield child, Path(child.stdout.readline().strip()).parent
        child.kill()


def prepare(folder: Path) -> None:
    with process.prepared(Config(), folder):
        pass


def test_temporary_files_go_into_the_folder_and_are_gone_with_it(tmp_path):
    with process.prepared(Config(), tmp_path):
        made = Path(tempfile.mkdtemp())
        assert made.parent.parent == tmp_path and os.environ["TMPDIR"] == str(made.parent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", [None, "/somewhere"])
def test_what_comes_after_has_the_temporary_folder_that_was_there_before(
    tmp_path, monkeypatch, before
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("TMPDIR", raising=False)
    if before:
        monkeypatch.setenv("TMPDIR", before)
    with pytest.raises(KeyError), process.prepared(Config(), tmp_path / "run"):
        raise KeyError
    assert (os.environ.get("TMPDIR"), tempfile.tempdir) == (before, str(tmp_path))
    with tempfile.TemporaryDirectory() as other:
        assert Path(other).parent == tmp_path


def test_a_process_can_make_temporary_files_after_a_training(running, tmp_path):
    child, scratch = running
    printed, _ = child.communicate()
    assert child.returncode == 0 and not Path(printed.strip()).is_relative_to(tmp_path / "run")
    assert not scratch.exists()


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(
    running, tmp_path
):
    child, scratch = running
    prepare(tmp_path / "run")
    assert scratch.is_dir()
    child.kill()
    child.wait()
    assert scratch.is_dir()
    prepare(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_the_folder_of_a_process_that_another_machine_counts_stays(running, tmp_path):
    _, scratch = running
    renamed = scratch.rename(
        scratch.with_name("tmp-999999999-abc")
    )  # Such a number is nobody's here.
    prepare(tmp_path / "run")
    assert renamed.is_dir()


@pytest.mark.parametrize("name", ["tmp-foo", "tmp-", "tmp-1-mine"])
def test_a_folder_that_only_looks_alike_is_left_alone(tmp_path, name):
    (tmp_path / name).mkdir()
    prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


class Setting:
    """As Model Garden has them."""

    value: "int"


def test_type_hints_of_a_configuration_are_evaluated_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Setting, "__module__", "official.of_a_test")
    with process.prepared(Config(), tmp_path):
        typing.get_type_hints(Setting).clear()
        monkeypatch.setitem(Setting.__annotations__, "value", "nowhere")
        assert typing.get_type_hints(Setting) == {"value": int}
    with pytest.raises(NameError):
        typing.get_type_hints(Setting)
