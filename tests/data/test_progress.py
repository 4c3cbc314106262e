"""What a build shows while its shards are written."""

import os
import sys
import time
from pathlib import Path

import pytest
from etils import epath

from pipelines.data import checks, progress, summary
from pipelines.data.index import Index
from pipelines.data.progress import Progress
from pipelines.data.summary import Summary

SHARDS = ("train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord")
LINE = "data: 7 of about 20 records, "


@pytest.fixture
def folder(tmp_path: Path) -> epath.Path:
    """A data set of twenty examples and two shards, of which one is written: seven records, one reject."""
    path = epath.Path(tmp_path)
    checks.place(path, "").mkdir(parents=True)
    rejects = [["train", "a.jpg", "a.jpg", "image_empty", "", True, 0]]
    summary.write(Summary(SHARDS[0], "inputs", examples=7, rejects=rejects), path)
    summary.write(Summary(SHARDS[1], "those of another build", examples=9), path)
    return path


def listed(folder: epath.Path) -> Index:
    return Index(str(folder), dict.fromkeys(SHARDS, "inputs"), {"train": 20})


def test_a_pipe_gets_lines(
    folder: epath.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY_PIPED_S", 0.05)
    shown = ""
    with Progress(folder, listed(folder), SHARDS):
        while shown.count("\n") < 2:
            time.sleep(0.05)
            shown += capsys.readouterr().out
    for line in shown.splitlines():
        assert line.startswith(LINE) and " a second, 1 rejects, " in line


def test_a_terminal_gets_a_bar_that_goes_when_all_is_written(
    folder: epath.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = os.openpty()
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        shown = b""
        with Progress(folder, listed(folder), SHARDS):
            while LINE.encode() not in shown:
                shown += os.read(master, 1 << 16)
        monkeypatch.undo()
    shown += os.read(master, 1 << 16)
    os.close(master)
    assert b"35%" in shown
    assert shown.endswith(b"\x1b[2K")  # The bar's line is cleared.
