"""One trial: a training in a process of its own, which ends when the sweep does and goes on where it stopped."""

import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines import config
from pipelines.system import processes

OUTPUT = "output.log"  # in the run directory: what the trial's process printed


@dataclass
class Trial:
    """One point of a sweep and what became of it.

    Attributes:
        identity: hash of the configuration, the data and the circumstances; `base` is that of the first two.
        settings: what this trial has of its own: parameter and value.
        recipe: overrides that train it again, the number of threads included.
        state: waiting, running, finished, failed or interrupted.
        value: the metric that is ranked.
        earlier: finished in an earlier session.
        circumstances: what else the result depends on.
        anew: in what the circumstances differ from those under which it finished earlier; None: it did not.
    """

    identity: str
    settings: dict[str, Any]
    recipe: list[str]
    run_dir: Path
    parent: Path | None = None
    state: str = "waiting"
    value: float | None = None
    metric: str = ""
    reason: str | None = None
    run_id: str | None = None
    seconds: float = 0.0
    earlier: bool = False
    base: str = ""
    circumstances: dict[str, Any] = field(default_factory=dict)
    anew: str | None = None
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    _started: float = 0.0
    _before: int = 0  # bytes of output from earlier sessions

    @classmethod
    def at(
        cls, directory: Path, identity: str, settings: dict[str, Any], recipe: list[str]
    ) -> "Trial":
        """The trial in its own run directory below that of its sweep."""
        words = re.sub(r"[^A-Za-z0-9.]+", "_", label(settings)).strip("_.")[:60]
        return cls(identity, settings, recipe, directory / f"{words}-{identity[:8]}", directory)

    @property
    def label(self) -> str:
        """The settings in one line."""
        return label(self.settings)

    def start(self) -> None:
        """Starts the process; what it prints goes to a file in the run directory."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        places = [
            f"{key}={config.override_value(str(value))}" for key, value in self._places().items()
        ]
        command, environment = processes.this_tool("train", *self.recipe, *places)
        with (self.run_dir / OUTPUT).open("ab") as output:
            self._before = output.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C on the terminal is for the sweep, which passes it on.
                preexec_fn=processes.end_with(os.getpid()),
            )
        self.state, self.reason, self._started = "running", None, time.monotonic()

    def poll(self, metric: str | None, summary: Callable[[Path], Mapping[str, Any]]) -> bool:
        """Whether the process has ended; if so, takes note of how."""
        code = self._process.poll() if self._process else None
        if code is None:
            return False
        self.seconds, self._process = round(time.monotonic() - self._started, 1), None
        if code == 0:
            self.take(metric, summary(self.run_dir))
        else:
            self.state = "failed"
            self.reason = _reason(code, self._output(), summary(self.run_dir).get("failure"))
        return True

    def take(self, metric: str | None, summary: Mapping[str, Any]) -> None:
        """Takes the result from the summary that the training wrote."""
        headline = summary.get("headline", {})
        self.metric = metric or headline.get("metric", "")
        value = summary.get("metrics", {}).get(metric) if metric else headline.get("value")
        self.run_id = summary.get("mlflow_run_id")
        self.seconds = self.seconds or round(sum(summary.get("seconds", {}).values()), 1)
        if value is None or not math.isfinite(float(value)):
            known = ", ".join(sorted(summary.get("metrics", {}))) or "none"
            self.state, self.reason = (
                "failed",
                f"{self.metric or 'headline'} is {value}; metrics of the evaluation: {known}",
            )
        else:
            self.state, self.value, self.reason = "finished", float(value), None

    def progress(self) -> str:
        """The last step that the running trial has printed."""
        found = re.findall(r"step (\d+/\d+)", self._output())
        return found[-1] if found else "starting"

    def _places(self) -> dict[str, Path]:
        return {"run_dir": self.run_dir, **({"parent": self.parent} if self.parent else {})}

    def _output(self, most: int = 8192) -> str:
        """The end of what this session's process printed."""
        with (self.run_dir / OUTPUT).open("rb") as output:
            output.seek(max(self._before, output.seek(0, os.SEEK_END) - most))
            return output.read().decode(errors="replace")


def stop(trials: Sequence[Trial]) -> None:
    """Asks running trials to save and end, and waits for them; those that do not are killed."""
    running = [trial for trial in trials if trial._process]
    processes.stop([trial._process for trial in running if trial._process])
    for trial in running:
        trial.state, trial._process = "interrupted", None


def label(settings: Mapping[str, Any]) -> str:
    """Settings in one line."""
    return (
        " ".join(f"{short(name)}={brief(value)}" for name, value in settings.items())
        or "as composed"
    )


def short(name: str) -> str:
    """A parameter's name without the path before it; a bare `type` says nothing, so it takes its owner's name."""
    return name.lstrip("+").removesuffix(".type").rpartition(".")[2]


def brief(value: Any) -> str:
    """A value as people write it."""
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace(" ", "")


def _reason(code: int, output: str, failure: str | None) -> str:
    """Why a trial failed, in one line."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + ("; out of memory?" if name == "SIGKILL" else "")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = next(
        (
            line.removeprefix("trellis: ")
            for line in reversed(lines)
            if line.startswith("trellis: ")
        ),
        None,
    )
    return (said or failure or next(reversed(lines), f"exit code {code}"))[:300]
