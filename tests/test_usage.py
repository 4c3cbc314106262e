"""Exit codes: one table, in the code and in the documentation."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.system import durable
from pipelines.tracking import journal
from pipelines.usage import ExitCode, InUse, UsageError
from tests.training.test_experiment import arguments

ROOT = Path(__file__).parent.parent


def test_the_documented_exit_codes_are_those_of_the_commands() -> None:
    section = (
        (ROOT / "docs" / "faults.md").read_text().split("## Exit codes\n")[1].split("\n## ")[0]
    )
    rows = re.findall(r"^\| (\d+) \|", section, re.MULTILINE)
    assert [int(row) for row in rows] == [int(code) for code in ExitCode]


def test_what_is_in_use_now_has_an_exit_code_of_its_own() -> None:
    assert (UsageError("no such key").exit_code, InUse("by process 1").exit_code) == (2, 69)


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 0), (["no_such_verb"], 2), (["show", "experiment=no_such"], 2)]
)
def test_commands_end_with_a_code_of_the_table(arguments: list[str], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == code


@pytest.mark.slow
def test_a_training_in_a_directory_in_use_ends_with_its_code(trellis, tiny, tmp_path) -> None:
    chosen = arguments(tiny, tmp_path, "resnet", "run")
    with durable.locked(journal.folder(tmp_path / "run") / "run.lock"):
        assert "is in use by process" in trellis("train", *chosen, code=69)
