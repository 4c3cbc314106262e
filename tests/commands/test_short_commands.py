"""The commands that only answer: what they may not import, since a person waits for it."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.config import Config
from pipelines.system import processes
from pipelines.tracking.recording import Recorder
from pipelines.usage import UsageError

SLOW = (
    "apache_beam",
    "matplotlib",
    "mlflow",
    "official",
    "optuna",
    "pandas",
    "scipy",
    "sklearn",
    "tensorflow",
)
# Runs one command after the other as the console does; prints after each the slow libraries that are imported by then.
PROGRAM = """
import contextlib, io, json, sys
from pipelines import __main__ as console
for words in json.loads(sys.argv[1]):
    sys.argv = ["trellis", *words]
    printed = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(printed):
        try:
            console.main()
        except SystemExit as end:
            code = end.code
    print(json.dumps([words, code, len(printed.getvalue()), sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The directories of two runs, as far as comparing reads them."""
    root = tmp_path_factory.mktemp("runs")
    folders = []
    for name in ("one", "two"):
        folder = root / name
        cfg = Config(data_dir=str(root), runs_dir=str(root), run_dir=str(folder))
        recorder = Recorder(folder)
        recorder.begin(cfg)
        recorder.file("flight.jsonl", json.dumps({"step": 1, "loss": 0.5}) + "\n")
        recorder.end("FINISHED", None)
        folders.append(str(folder))
    return folders


def imported_after(commands: list[list[str]], folder: Path) -> dict[str, list[str]]:
    """The slow libraries that a process has imported after each of these commands, in turn."""
    _, environment = processes.this_tool()
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, json.dumps(commands)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    slow = {}
    for line in done.stdout.splitlines():
        words, code, length, modules = json.loads(line)
        # A comparison that finds a difference leaves with 1.
        assert code in (0, 1) and length > 0, (words, done.stderr)
        slow[" ".join(words)] = [name for name in SLOW if name in modules]
    return slow


def test_commands_that_only_answer_import_nothing_slow(recorded: list[str], tmp_path: Path) -> None:
    one, two = recorded
    runs = [f"run={one}", f"against={two}", f"runs_dir={tmp_path}"]
    commands = [
        [],
        ["train", "--help"],
        ["list"],
        ["show", "experiment=retinanet"],
        ["bisect", *runs],
        ["compare", *runs],
    ]
    slow = imported_after(commands, tmp_path)
    assert len(slow) == len(commands)
    assert all(names == [] for names in slow.values()), slow


TOLD_NOTHING = {
    "train": "EXP=",
    "check": "EXP=",
    "finetune": "EXP=",
    "reproduce": "RUN=",
    "data": "DATA=",
    "compare": "RUN=",
    "bundle": "run:",
    "evaluate": "run:",
    "serve": "run:",
}


@pytest.mark.parametrize("verb", TOLD_NOTHING)
def test_a_command_that_is_told_nothing_says_what_to_name(verb: str) -> None:
    command = importlib.import_module(f"pipelines.commands.{verb}")
    with pytest.raises(UsageError, match=TOLD_NOTHING[verb]):
        command.main([])


@pytest.mark.parametrize(
    ("words", "code"), [("list", 0), ("choose task=detection", 141), ("--help", 141)]
)
def test_a_reader_that_has_gone_ends_a_command_without_a_word(words: str, code: int) -> None:
    # As in `trellis list | head -1`; a list is all that was asked for, so that make says nothing either.
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pipelines", *words.split()]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=processes.ROOT)
    os.close(write)
    assert (done.returncode, done.stderr) == (code, b"")
