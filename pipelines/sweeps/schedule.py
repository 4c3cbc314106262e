"""The course of a sweep: which trial next, how many at a time, what was learnt from those before."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipelines.config import differences
from pipelines.sweeps import proposals
from pipelines.sweeps.ledger import Ledger
from pipelines.sweeps.space import Point, Space
from pipelines.sweeps.trial import Trial, stop

INTERVAL_S = 0.25
MOST_REASONS = 3  # that a line names


class Audience(Protocol):
    """Receives the progress of a sweep."""

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
        self.space = space
        self.ledger = ledger
        self.jobs = jobs
        self.metric = metric
        self._prepare = prepare
        self._summary = summary
        self._occupied = occupied
        self._unchanged = unchanged
        self.trials: list[Trial] = []
        self._points: list[tuple[Point, list[Trial]]] = []  # each point with its trials, in order
        self._around = proposals.combinations(space.around)
        self._adaptive = space.method == "tpe"
        if self._adaptive:
            points = ledger.suggested(space.digest())[: space.trials]
        else:
            points = proposals.fixed(space)
        for point in points:
            self._add(point)

    def run(self, audience: Audience, check: Callable[[], None]) -> None:
        """Runs what is missing. `check` raises to interrupt; running trials then save and end."""
        try:
            while self._advance(audience):
                check()
                audience.refresh(self.trials)
                time.sleep(INTERVAL_S)
        finally:
            stopped = self._in_state("running")
            stop(stopped)
            for trial in stopped:
                self.ledger.write("interrupted", trial=trial.identity)
                audience.changed(trial)

    def _advance(self, audience: Audience) -> bool:
        """Takes one look around; says whether anything is left to do."""
        for trial in self._in_state("running"):
            if trial.poll(self.metric, self._summary):
                self._note(trial)
                audience.changed(trial)
        while self._more_to_suggest() and self._informed():
            self._suggest()
        running = len(self._in_state("running"))
        waiting = self._in_state("waiting")
        for trial in waiting:
            # Occupied by what is left of a sweep that was killed.
            if running < self.jobs and not self._occupied(trial.run_dir):
                running += self._begin(trial)
                audience.changed(trial)
        return bool(running or waiting or self._more_to_suggest())

    def _in_state(self, state: str) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == state]

    def _more_to_suggest(self) -> bool:
        return self._adaptive and len(self._points) < self.space.trials

    def _begin(self, trial: Trial) -> bool:
        """Starts a trial, unless it turns out to be finished."""
        summary = self._summary(trial.run_dir)
        if summary.get("status") == "finished":
            # The sweep was killed before it could write this down.
            trial.take(self.metric, summary)
            self._note(trial)
            return False
        self._unchanged()
        self.ledger.write(
            "started",
            trial=trial.identity,
            settings=trial.settings,
            run_dir=str(trial.run_dir),
        )
        trial.start()
        return True

    def _note(self, trial: Trial) -> None:
        if trial.state != "finished":
            self.ledger.write("failed", trial=trial.identity, reason=trial.reason)
            return
        self.ledger.write(
            "finished",
            trial=trial.identity,
            base=trial.base,
            circumstances=self.ledger.under(trial.circumstances),
            value=trial.value,
            metric=trial.metric,
            seconds=trial.seconds,
            run_id=trial.run_id,
        )

    def _add(self, point: Point) -> None:
        group = []
        for outer in self._around:
            trial = self._prepare({**point, **outer})
            group.append(self._known(trial))
        self._points.append((point, group))

    def _known(self, trial: Trial) -> Trial:
        """The trial of the same identity where there is one, else this one, with the result that the ledger has for it."""
        for same in self.trials:
            if same.identity == trial.identity:
                return same
        result = self.ledger.finished.get(trial.identity)
        if result and self.metric in (None, result["metric"]):
            trial.state = "finished"
            trial.earlier = True
            trial.value = result["value"]
            trial.metric = result["metric"]
            trial.seconds = result["seconds"]
            trial.run_id = result["run_id"]
        elif not result and trial.base:
            trial.anew = self._reason(trial)
        self.trials.append(trial)
        return trial

    def _reason(self, trial: Trial) -> str | None:
        """In what the circumstances differ from those under which the trial finished earlier, in a few words."""
        before = self.ledger.earlier(trial.base)
        # As the ledger holds them: JSON knows no tuples.
        now = json.loads(json.dumps(trial.circumstances))
        reasons = differences(before, now) if before is not None else []
        more = len(reasons) - MOST_REASONS
        if more > 0:
            reasons = [*reasons[:MOST_REASONS], f"{more} more"]
        return "; ".join(reasons) or None

    def _informed(self) -> bool:
        """Whether every point that the next suggestion learns from has its result.

        With jobs at a time the last points before it are left out, whether they have ended or not: a suggestion must not
        depend on which trial happened to be faster.
        """
        for _, group in self._points[: self._learnt()]:
            if any(trial.state not in ("finished", "failed") for trial in group):
                return False
        return True

    def _learnt(self) -> int:
        at_a_time = math.ceil(self.jobs / len(self._around))
        return max(0, len(self._points) + 1 - at_a_time)

    def _suggest(self) -> None:
        learnt = self._learnt()
        before = self._points[:learnt]
        past = [(point, _mean(group)) for point, group in before]
        pending = [point for point, _ in self._points[learnt:]]
        point = proposals.suggest(self.space, past, pending)
        number = len(self._points)
        self.ledger.write(
            "suggested",
            space=self.space.digest(),
            number=number,
            point=point,
        )
        self._add(point)


def _mean(group: Sequence[Trial]) -> float | None:
    """The mean over the seeds; None where one failed: the mean of those that survived would praise a risky point."""
    values = [trial.value for trial in group if trial.value is not None]
    if len(values) < len(group):
        return None
    return sum(values) / len(values)
