"""One trial of a sweep: what it trains, and what became of it."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines import config
from pipelines.sweeps import job, labels
from pipelines.sweeps.job import Job


@dataclass
class Trial:
    """One point of a sweep and what became of it.

    Attributes:
        identity: hash of the configuration, the data and the circumstances; `base` is that of the first two.
        settings: by parameter, the values that set this trial apart.
        recipe: overrides that train it again, the number of threads included.
        state: waiting, running, finished, failed or interrupted.
        value: the metric that is ranked.
        earlier: finished in an earlier session.
        circumstances: what else the result depends on.
        anew: in what the circumstances differ from those under which it finished earlier; None: it did not.
        job: the process that trains it while it is running.
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
    job: Job | None = field(default=None, repr=False)

    @classmethod
    def at(
        cls, directory: Path, identity: str, settings: dict[str, Any], recipe: list[str]
    ) -> "Trial":
        """The trial in its own run directory below that of its sweep."""
        words = re.sub(r"[^A-Za-z0-9.]+", "_", labels.label(settings)).strip("_.")
        run_dir = directory / f"{words[:60]}-{identity[:8]}"
        return cls(
            identity,
            settings,
            recipe,
            run_dir,
            directory,
        )

    @property
    def label(self) -> str:
        """The settings in one line."""
        return labels.label(self.settings)

    def start(self) -> None:
        """Starts to train it."""
        overrides = [*self.recipe, _override("run_dir", self.run_dir)]
        if self.parent:
            overrides.append(_override("parent", self.parent))
        self.job = Job(overrides, self.run_dir)
        self.state = "running"
        self.reason = None

    def poll(self, metric: str | None, summary: Callable[[Path], Mapping[str, Any]]) -> bool:
        """Whether its job has ended; if so, takes note of how.

        Args:
            metric: of the evaluation, to rank by; None: the experiment's headline.
            summary: reads the summary in a run directory.
        """
        code = self.job.poll() if self.job else None
        if self.job is None or code is None:
            return False
        self.seconds = self.job.seconds()
        result = summary(self.run_dir)
        if code == 0:
            self.take(metric, result)
        else:
            self._fail(self.job.reason(code, result.get("failure")))
        self.job = None
        return True

    def take(self, metric: str | None, summary: Mapping[str, Any]) -> None:
        """Takes the result from the summary that the training wrote."""
        headline = summary.get("headline", {})
        metrics = summary.get("metrics", {})
        self.metric = metric or headline.get("metric", "")
        self.run_id = summary.get("mlflow_run_id")
        if not self.seconds:
            spent = summary.get("seconds", {})
            self.seconds = round(sum(spent.values()), 1)
        value = metrics.get(metric) if metric else headline.get("value")
        if value is None or not math.isfinite(float(value)):
            names = ", ".join(sorted(metrics)) or "none"
            self._fail(
                f"{self.metric or 'headline'} is {value}; metrics of the evaluation: {names}"
            )
            return
        self.state = "finished"
        self.value = float(value)
        self.reason = None

    def _fail(self, reason: str) -> None:
        self.state = "failed"
        self.reason = reason


def _override(key: str, path: Path) -> str:
    return f"{key}={config.override_value(str(path))}"


def stop(trials: Sequence[Trial]) -> None:
    """Asks running trials to save and end, and waits for them; those that do not are killed."""
    running = [trial for trial in trials if trial.job]
    job.stop([trial.job for trial in running if trial.job])
    for trial in running:
        trial.state = "interrupted"
        trial.job = None
