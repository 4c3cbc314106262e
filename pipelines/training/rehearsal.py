"""A training in another process that is left early: its own recipe and schedule, so that nothing else differs."""

import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines import config
from pipelines.config import Config
from pipelines.system import processes
from pipelines.usage import UsageError

STEP = re.compile(r"step (\d+)/")


def recipe(cfg: Config, run_dir: Path, **trainer: Any) -> Path:
    """Writes the file from which `until` trains, beside the run directory.

    Args:
        trainer: settings of Model Garden's trainer in place of the recipe's.
    """
    file = run_dir.with_suffix(".yaml")
    changed = replace(
        cfg,
        runs_dir=str(run_dir.parent),
        run_dir=str(run_dir),
        trainer={**cfg.trainer, **trainer},
    )
    file.write_text(config.to_yaml(changed))
    return file


def until(
    step: int,
    file: Path,
    how: signal.Signals = signal.SIGTERM,
    variables: Mapping[str, str] | None = None,
) -> dict[int, float]:
    """Trains until it has told of so many steps, then sends it the signal.

    Args:
        variables: of its environment, beside ours.

    Returns:
        When each step was told of, in seconds of the monotonic clock.

    Raises:
        UsageError: it ended before.
    """
    command, environment = processes.this_tool("train", f"@{file}")
    output: dict[str, Any] = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    told: dict[int, float] = {}
    printed = ""
    with subprocess.Popen(command, env={**environment, **(variables or {})}, **output) as child:
        for line in child.stdout:  # type: ignore[union-attr]
            printed += line
            match = STEP.match(line)
            if match:
                told[int(match[1])] = time.monotonic()
            if step in told:
                child.send_signal(how)
                break
        rest, _ = child.communicate()
    if step not in told:
        raise UsageError(f"a training of {step} steps ended before:\n{printed}{rest}")
    return told
