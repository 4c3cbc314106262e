"""The course of a sweep: which trial next, how many at a time, what was learnt from those before."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipelines.config import differences
from pipelines.sweeps import proposals, trials
from pipelines.sweeps.ledger import Ledger
from pipelines.sweeps.space import Point, Space
from pipelines.sweeps.trials import Trial

INTERVAL_S = 0.25
MOST_REASONS = 3  # that a line names


class Audience(Protocol):
    """Who is told how the sweep goes."""

    def changed(self, trial: Trial) -> None:
        """A trial changed its state."""

    def refresh(self, every: Sequence[Trial]) -> None:
        """Time has passed."""


class Schedule:
    """A sweep under way.

    Attributes:
        trials: every trial known so far, in order, each once.
    """

    def __init__(
        self,
        space: Space,
        ledger: Ledger,
        prepare: Callable[[Point], Trial],
        *,
        summary: Callable[[Path], Mapping[str, Any]],
        occupied: Callable[[Path], bool],
        unchanged: Callable[[], None] = lambda: None,
        metric: str | None = None,
        jobs: int = 1,
    ) -> None:
        """Lays out what is known from the start.

        Args:
            prepare: makes the trial of a point.
            summary: reads the summary in a run directory.
            occupied: whether a process is recording in a run directory.
            unchanged: called before a trial starts; raises where it would not train what it is named after.
            metric: of the evaluation, to rank by; None: each experiment's headline.
        """
        self.space, self.ledger, self.jobs, self.metric = space, ledger, jobs, metric
        self._prepare, self._summary, self._occupied = prepare, summary, occupied
        self._unchanged = unchanged
        self.trials: list[Trial] = []
        self._points: list[tuple[Point, list[Trial]]] = []  # each point with its trials, in order
        self._around = proposals.combinations(space.around)
        self._adaptive = space.method == "tpe"
        known = (
            ledger.suggested(space.digest())[: space.trials]
            if self._adaptive
            else proposals.fixed(space)
        )
        for point in known:
            self._add(point)

    def run(self, audience: Audience, check: Callable[[], None]) -> None:
        """Runs what is missing. `check` raises to interrupt; running trials then save and end."""
        try:
            while self._advance(audience):
                check()
                audience.refresh(self.trials)
                time.sleep(INTERVAL_S)
        finally:
            running = [trial for trial in self.trials if trial.state == "running"]
            trials.stop(running)
            for trial in running:
                self.ledger.write("interrupted", trial=trial.identity)
                audience.changed(trial)

    def _advance(self, audience: Audience) -> bool:
        """Takes one look around; says whether anything is left to do."""
        for trial in self.trials:
            if trial.state == "running" and trial.poll(self.metric, self._summary):
                self._note(trial)
                audience.changed(trial)
        while self._adaptive and len(self._points) < self.space.trials and self._informed():
            self._suggest()
        running = sum(trial.state == "running" for trial in self.trials)
        waiting = [trial for trial in self.trials if trial.state == "waiting"]
        for trial in waiting:
            if running < self.jobs and not self._occupied(
                trial.run_dir
            ):  # By what is left of a sweep that was killed.
                running += self._begin(trial)
                audience.changed(trial)
        return bool(
            running or waiting or (self._adaptive and len(self._points) < self.space.trials)
        )

    def _begin(self, trial: Trial) -> bool:
        """Starts a trial, unless it turns out to be finished."""
        found = self._summary(trial.run_dir)
        if (
            found.get("status") == "finished"
        ):  # The sweep was killed before it could write this down.
            trial.take(self.metric, found)
            self._note(trial)
            return False
        self._unchanged()
        self.ledger.write(
            "started", trial=trial.identity, settings=trial.settings, run_dir=str(trial.run_dir)
        )
        trial.start()
        return True

    def _note(self, trial: Trial) -> None:
        if trial.state == "finished":
            result = {
                "value": trial.value,
                "metric": trial.metric,
                "seconds": trial.seconds,
                "run_id": trial.run_id,
            }
            under = self.ledger.under(trial.circumstances)
            self.ledger.write(
                "finished", trial=trial.identity, base=trial.base, circumstances=under, **result
            )
        else:
            self.ledger.write("failed", trial=trial.identity, reason=trial.reason)

    def _add(self, point: Point) -> None:
        group = [self._known(self._prepare({**point, **outer})) for outer in self._around]
        self._points.append((point, group))

    def _known(self, trial: Trial) -> Trial:
        """The trial of the same identity where there is one, else this one, with the result that the ledger has for it."""
        same = next((other for other in self.trials if other.identity == trial.identity), None)
        if same:
            return same
        found = self.ledger.finished.get(trial.identity)
        if found and (self.metric is None or found["metric"] == self.metric):
            trial.state, trial.earlier = "finished", True
            trial.value, trial.metric = found["value"], found["metric"]
            trial.seconds, trial.run_id = found["seconds"], found["run_id"]
        elif not found and trial.base:
            trial.anew = self._reason(trial)
        self.trials.append(trial)
        return trial

    def _reason(self, trial: Trial) -> str | None:
        """In what the circumstances differ from those under which the trial finished earlier, in a few words."""
        before = self.ledger.earlier(trial.base)
        # As the ledger holds them: JSON knows no tuples.
        now = json.loads(json.dumps(trial.circumstances))
        lines = differences(before, now) if before is not None else []
        return (
            "; ".join(lines[:MOST_REASONS])
            + (f"; {len(lines) - MOST_REASONS} more" if len(lines) > MOST_REASONS else "")
            or None
        )

    def _informed(self) -> bool:
        """Whether every point that the next suggestion learns from has its result.

        With jobs at a time the last points before it are left out, whether they have ended or not: a suggestion must not
        depend on which trial happened to be faster.
        """
        past = self._points[: self._learnt()]
        return all(trial.state in ("finished", "failed") for _, group in past for trial in group)

    def _learnt(self) -> int:
        return max(0, len(self._points) + 1 - math.ceil(self.jobs / len(self._around)))

    def _suggest(self) -> None:
        learnt = self._learnt()
        past = [(point, _mean(group)) for point, group in self._points[:learnt]]
        point = proposals.suggest(self.space, past, [point for point, _ in self._points[learnt:]])
        self.ledger.write(
            "suggested", space=self.space.digest(), number=len(self._points), point=point
        )
        self._add(point)


def _mean(group: Sequence[Trial]) -> float | None:
    """The mean over the seeds; None where one failed: the mean of those that survived would praise a risky point."""
    values = [trial.value for trial in group if trial.value is not None]
    return sum(values) / len(values) if len(values) == len(group) else None
