"""Trains one experiment at every point of a search space.    make sweep EXP=resnet SWEEP=learning_rate ARGS="seed=1,2 jobs=2"

Lists and intervals on the command line are Hydra's: seed=1,2, choice(…), range(1,10), interval(0.01,1). Every trial is a
process of its own; jobs=<n> trials at a time share the cores. The same command again runs only what is missing or failed.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tasks
from pipelines import config
from pipelines.config import Config
from pipelines.data import store
from pipelines.sweeps import circumstances, commandline, ranking, space, trials
from pipelines.sweeps.commandline import Request
from pipelines.sweeps.display import Display
from pipelines.sweeps.ledger import Ledger
from pipelines.sweeps.schedule import Schedule
from pipelines.sweeps.space import Point
from pipelines.sweeps.trials import Trial
from pipelines.system import durable, processes
from pipelines.system.signals import Interrupted, Interruption
from pipelines.tracking import continuation, environment, journal, recording, runs
from pipelines.usage import ExitCode, UsageError


def main(overrides: Sequence[str]) -> int:
    """Takes the overrides as they were written: composition refuses lists and intervals."""
    environment.at_start()
    request = commandline.read(overrides)
    cfg = config.anchored(config.compose([*request.fixed, *request.own]))
    return run(cfg, request, overrides)


def run(cfg: Config, request: Request, overrides: Sequence[str]) -> int:
    """Returns 0 when every trial finished, 1 when some failed, 128 plus the signal's number when interrupted."""
    searched = space.read(cfg.sweep, request.lists, request.ranges)
    if cfg.jobs < 1 or (cfg.jobs > 1 and cfg.runtime.get("num_gpus")):
        raise UsageError(
            f"jobs: {cfg.jobs}; at least 1, and on GPUs no more, since each trial takes all that are visible"
        )
    cfg = _placed(cfg, request)
    directory = Path(cfg.run_dir)
    runs.prepare(cfg)
    try:
        with Interruption() as signals, runs.record(cfg) as recorder:
            made = _Trials(cfg, request, directory)
            schedule = Schedule(
                searched,
                Ledger(directory / "ledger.jsonl"),
                made.prepare,
                unchanged=made.refuse_other_code,
                summary=recording.read_summary,
                occupied=lambda run_dir: durable.held(journal.folder(run_dir) / "run.lock"),
                metric=cfg.sweep.metric if cfg.sweep else None,
                jobs=cfg.jobs,
            )
            done = sum(trial.earlier for trial in schedule.trials)
            print(
                f"sweep {directory.name}: {len(schedule.trials)} trials, {done} of them finished earlier; {cfg.jobs} at a time, "
                f"{processes.share(cfg.jobs)} threads each; {directory}",
                flush=True,
            )
            for reason in dict.fromkeys(filter(None, (trial.anew for trial in schedule.trials))):
                count = sum(trial.anew == reason for trial in schedule.trials)
                print(
                    f"trained anew: {count} trials finished earlier, but under other circumstances: {reason}",
                    flush=True,
                )
            recorder.tags({"sweep": directory.name, "method": searched.method})
            signals.hold("the trials have saved")
            try:
                with Display(searched.goal) as display:
                    schedule.run(display, signals.check)
            finally:
                _report(recorder, schedule, searched.goal, cfg.name)
    except Interrupted as stop:
        print(
            f"interrupted ({stop}); what is finished is kept. To go on: {commandline.make('sweep', overrides)}"
        )
        return stop.exit_code
    failed = sum(trial.state == "failed" for trial in schedule.trials)
    if failed:
        print(
            f"{failed} failed; the same command tries them again: {commandline.make('sweep', overrides)}"
        )
    return ExitCode.FAILED if failed else ExitCode.DONE


class _Trials:
    """Makes trials of points; each data set is built and each experiment composed once."""

    def __init__(self, cfg: Config, request: Request, directory: Path) -> None:
        self.cfg, self.request, self.directory = cfg, request, directory
        self._packages, self._code = environment.packages(), circumstances.code()
        self._fingerprints: dict[str, str] = {}
        self._composed: dict[tuple[str, ...], Config] = {}

    def prepare(self, point: Point) -> Trial:
        """The trial of one point."""
        groups = {name: value for name, value in point.items() if name in config.GROUPS}
        settings, overrides = space.settle(point, self._compose(space.settle(groups, self.cfg)[1]))
        overrides = [*self.request.fixed, *overrides]
        cfg = config.compose(overrides)
        base, around = (
            space.identity(cfg, self._fingerprint(cfg)),
            circumstances.describe(cfg, self._packages),
        )
        identity = hashlib.sha256(f"{base} {circumstances.digest(around)}".encode()).hexdigest()
        trial = Trial.at(self.directory, identity, settings, overrides)
        trial.base, trial.circumstances = base, around
        recorded = continuation.threads(trial.run_dir)
        trial.recipe += config.thread_overrides(
            cfg.threads, processes.share(self.cfg.jobs), recorded
        )
        return trial

    def refuse_other_code(self) -> None:
        """Refuses to start a trial once the source has been edited: it would not train what it is named after."""
        if circumstances.code() != self._code:
            raise UsageError(
                "the source of pipelines, tasks or conf has changed since the sweep began; what is finished is kept, and the "
                "same command trains everything anew with the source as it is now; change it back to keep what there is"
            )

    def _compose(self, chosen: list[str]) -> Config:
        """What short names and multiples of a point refer to."""
        key = tuple(chosen)
        if key not in self._composed:
            self._composed[key] = config.compose([*self.request.fixed, *chosen])
        return self._composed[key]

    def _fingerprint(self, cfg: Config) -> str:
        dataset = config.chosen_dataset(cfg)
        key = json.dumps(dataclasses.asdict(dataset), default=str)
        if key not in self._fingerprints:
            self._fingerprints[key] = store.obtain(cfg, tasks.load(dataset.task)).fingerprint
        return self._fingerprints[key]


def _placed(cfg: Config, request: Request) -> Config:
    """The configuration of the parent run: named after what it searches, in a directory that the same command finds again."""
    chosen = dict(text.split("=", 1) for text in request.own)
    if cfg.name == "none":
        names = request.lists.get("experiment")
        if not names:
            raise UsageError(config.NO_EXPERIMENT)
        cfg = dataclasses.replace(cfg, name="_".join(map(str, names))[:60])
    if "run_dir" in chosen:
        return cfg
    varied = [
        *filter(None, [chosen.get("sweep")]),
        *map(trials.short, [*request.lists, *request.ranges]),
    ]
    identity = space.identity(config.compose(request.fixed), "")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(dict.fromkeys([cfg.name, *varied])))
    return dataclasses.replace(
        cfg, run_dir=str(Path(cfg.runs_dir) / "sweeps" / f"{name}-{identity[:6]}")
    )


def _report(recorder: Any, schedule: Schedule, goal: str, name: str) -> None:
    """Writes and prints the ranking and how to train the best again."""
    rows = ranking.rank(schedule.trials, goal)
    recorder.file("ranking.csv", ranking.as_csv(rows))
    recorder.file("ledger.jsonl")
    recorder.summary.update(
        experiment=name, run_dir=str(recorder.run_dir), **ranking.as_summary(schedule.trials, rows)
    )
    print(ranking.as_text(rows))
    for trial in schedule.trials:
        if trial.state == "failed":
            print(f"failed: {trial.label}: {trial.reason}; {trial.run_dir / trials.OUTPUT}")
    best = ranking.winner(rows)
    if rows:
        metric = rows[0].best.metric
        ranking.draw(
            rows, f"{name}: {metric} of {len(rows)} settings", recorder.run_dir / "ranking.png"
        )
        recorder.file("ranking.png")
    if best:
        recorder(
            sum(trial.state == "finished" for trial in schedule.trials),
            {f"validation/{metric}": best.mean},
        )
        print(
            f"best: {best.label}: {metric} {best.mean:.4f}; ranking.png, ranking.csv in {recorder.run_dir}"
        )
        print(f"train it again: {commandline.make('train', best.best.recipe)}")
