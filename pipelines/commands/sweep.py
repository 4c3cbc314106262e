"""Trains one experiment at every point of a space.    make sweep EXP=resnet SWEEP=learning_rate ARGS="seed=1,2 jobs=2"

Lists and intervals on the command line are Hydra's: seed=1,2, choice(…), range(1,10), interval(0.01,1). Every trial is a
separate process; jobs=<n> trials at a time share the cores. The same command again runs only what is missing or failed.
"""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tasks
from pipelines import assembly, config, outcomes
from pipelines.config import Config
from pipelines.data import store
from pipelines.sweeps import (
    circumstances,
    commandline,
    picture,
    ranking,
    space,
    ties,
)
from pipelines.sweeps.commandline import Request
from pipelines.sweeps.display import Display
from pipelines.sweeps.job import OUTPUT
from pipelines.sweeps.labels import short
from pipelines.sweeps.ledger import Ledger
from pipelines.sweeps.ranking import Row
from pipelines.sweeps.schedule import Schedule
from pipelines.sweeps.space import Point, Space
from pipelines.sweeps.trial import Trial
from pipelines.system import durable, processes
from pipelines.system.signals import Interrupted, Interruption
from pipelines.tracking import continuation, environment, journal, mlflow_store, session
from pipelines.tracking.record import read_summary
from pipelines.usage import ExitCode, UsageError, make_command


def main(overrides: Sequence[str]) -> int:
    """Takes the overrides as they were written: composition refuses lists and intervals."""
    environment.at_start()
    request = commandline.read(overrides)
    cfg = config.compose([*request.fixed, *request.own])
    return run(
        config.anchored(cfg),
        request,
        make_command("sweep", overrides),
    ).code


@dataclasses.dataclass(frozen=True)
class Swept:
    """What became of a sweep.

    Attributes:
        code: 0 when every trial finished, 1 when some failed, 128 plus the signal's number when interrupted.
    """

    code: int
    run_dir: Path
    trials: Sequence[Trial] = ()


def run(cfg: Config, request: Request, again: str) -> Swept:
    """Trains what is missing of a sweep, and ranks it.

    Args:
        again: the command that resumes it.
    """
    visited = space.read(
        cfg.sweep,
        request.lists,
        request.ranges,
    )
    _refuse_other_jobs(cfg)
    cfg = _placed(cfg, request)
    mlflow_store.create(mlflow_store.address(cfg))
    run_dir = Path(cfg.run_dir)
    try:
        with Interruption() as signals, session.recorded(cfg) as recorder:
            schedule = _schedule(
                cfg,
                request,
                visited,
            )
            _announce(cfg, schedule)
            recorder.tags({"sweep": Path(cfg.run_dir).name, "method": visited.method})
            signals.hold("the trials have saved")
            try:
                with Display(visited.goal) as display:
                    schedule.run(display, signals.check)
            finally:
                _report(
                    recorder,
                    schedule,
                    visited.goal,
                    cfg.name,
                )
    except Interrupted as stop:
        print(f"interrupted ({stop}); what is finished is kept. To resume: {again}")
        return Swept(stop.exit_code, run_dir)
    failed = sum(trial.state == "failed" for trial in schedule.trials)
    if failed:
        print(f"{failed} failed; the same command tries them again: {again}")
    return Swept(
        ExitCode.FAILED if failed else ExitCode.DONE,
        run_dir,
        schedule.trials,
    )


def _refuse_other_jobs(cfg: Config) -> None:
    most = 1 if cfg.runtime.get("num_gpus") else cfg.jobs
    if not 1 <= cfg.jobs <= most:
        raise UsageError(
            f"jobs: {cfg.jobs}; at least 1, and on GPUs no more, since each trial takes all that are visible"
        )


def _schedule(cfg: Config, request: Request, visited: Space) -> Schedule:
    directory = Path(cfg.run_dir)
    made = _Trials(
        cfg,
        request,
        directory,
    )
    return Schedule(
        visited,
        Ledger(directory / "ledger.jsonl"),
        made.prepare,
        unchanged=made.refuse_other_code,
        summary=read_summary,
        occupied=lambda run_dir: durable.held(journal.run_lock(run_dir)),
        metric=cfg.sweep.metric if cfg.sweep else None,
        jobs=cfg.jobs,
    )


def _announce(cfg: Config, schedule: Schedule) -> None:
    done = sum(trial.earlier for trial in schedule.trials)
    print(
        f"sweep {Path(cfg.run_dir).name}: {len(schedule.trials)} trials, {done} of them finished earlier; {cfg.jobs} at a time, "
        f"{processes.share(cfg.jobs)} threads each; {cfg.run_dir}",
        flush=True,
    )
    reasons = Counter(trial.anew for trial in schedule.trials if trial.anew)
    for reason, count in reasons.items():
        print(
            f"trained anew: {count} trials finished earlier, but under other circumstances: {reason}",
            flush=True,
        )


class _Trials:
    """Makes trials of points; each data set is built and each experiment composed once."""

    def __init__(self, cfg: Config, request: Request, directory: Path) -> None:
        self.cfg = cfg
        self.request = request
        self.directory = directory
        self._packages = environment.packages()
        self._code = circumstances.code()
        self._fingerprints: dict[str, str] = {}
        self._composed: dict[tuple[str, ...], Config] = {}

    def prepare(self, point: Point) -> Trial:
        """The trial of one point."""
        groups = {name: point[name] for name in point if name in config.GROUPS}
        _, chosen = space.settle(groups, self.cfg)
        settings, overrides = space.settle(point, self._compose(chosen))
        overrides = [*self.request.fixed, *overrides]
        cfg = assembly.with_starting_weights(config.compose(overrides))
        base = space.identity(cfg, self._fingerprint(cfg))
        around = circumstances.describe(cfg, self._packages)
        text = f"{base} {circumstances.digest(around)}"
        identity = hashlib.sha256(text.encode()).hexdigest()
        trial = Trial.at(
            self.directory,
            identity,
            settings,
            overrides,
        )
        trial.base = base
        trial.circumstances = around
        share = processes.share(self.cfg.jobs)
        recorded = continuation.threads(trial.run_dir)
        trial.recipe += config.thread_overrides(
            cfg.threads,
            share,
            recorded,
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
            overrides = [*self.request.fixed, *chosen]
            self._composed[key] = config.compose(overrides)
        return self._composed[key]

    def _fingerprint(self, cfg: Config) -> str:
        dataset = config.chosen_dataset(cfg)
        key = json.dumps(dataclasses.asdict(dataset), default=str)
        if key not in self._fingerprints:
            data = store.obtain(cfg, tasks.load(dataset.task))
            self._fingerprints[key] = data.fingerprint
        return self._fingerprints[key]


def _placed(cfg: Config, request: Request) -> Config:
    """The configuration of the parent run: named after what varies, in a directory that the same command finds again."""
    chosen = dict(text.split("=", 1) for text in request.own)
    if cfg.name == "none":
        names = request.lists.get("experiment")
        if not names:
            raise UsageError(config.NO_EXPERIMENT)
        cfg = dataclasses.replace(
            cfg,
            name="_".join(map(str, names))[:60],
        )
    if "run_dir" in chosen:
        return cfg
    words = [cfg.name]
    if chosen.get("sweep"):
        words.append(chosen["sweep"])
    varied = [*request.lists, *request.ranges]
    words += map(short, varied)
    name = re.sub(
        r"[^A-Za-z0-9_.-]+",
        "_",
        "-".join(dict.fromkeys(words)),
    )
    identity = space.identity(config.compose(request.fixed), "")
    run_dir = Path(
        cfg.runs_dir,
        "sweeps",
        f"{name}-{identity[:6]}",
    )
    return dataclasses.replace(cfg, run_dir=str(run_dir))


def _report(recorder: Any, schedule: Schedule, goal: str, name: str) -> None:
    """Writes and prints the ranking, what in it is chance, and how to train the best again."""
    rows = ranking.rank(schedule.trials, goal)
    found = [
        outcomes.of_run(
            row.best.run_dir,
            row.best.metric,
            row.best.value,
        )
        for row in rows
    ]
    tied = ties.find(rows, _images_shared_out(rows), found)
    text = ranking.as_csv(rows, tied.positions)
    recorder.file("ranking.csv", text)
    recorder.file("ledger.jsonl")
    recorder.summary.update(
        experiment=name,
        run_dir=str(recorder.run_dir),
        tied=[rows[position].settings for position in tied.positions],
        yardstick=tied.yardstick,
        **ranking.as_summary(schedule.trials, rows),
    )
    print(ranking.as_text(rows, tied.positions))
    for line in tied.lines():
        print(line)
    for trial in schedule.trials:
        if trial.state == "failed":
            output = trial.run_dir / OUTPUT
            print(f"failed: {trial.label}: {trial.reason}; {output}")
    if rows:
        _report_best(
            recorder,
            schedule,
            rows,
            name,
            bool(tied.positions),
        )


def _report_best(
    recorder: Any, schedule: Schedule, rows: Sequence[Row], name: str, tied: bool
) -> None:
    metric = rows[0].best.metric
    title = f"{name}: {metric} of {len(rows)} settings"
    picture.draw(
        rows,
        title,
        recorder.run_dir / "ranking.png",
    )
    recorder.file("ranking.png")
    best = ranking.winner(rows)
    if best is None:
        return
    finished = sum(trial.state == "finished" for trial in schedule.trials)
    recorder(finished, {f"validation/{metric}": best.mean})
    word = "first of a tie" if tied else "best"
    print(
        f"{word}: {best.label}: {metric} {best.mean:.4f}; ranking.png, ranking.csv in {recorder.run_dir}"
    )
    print(f"train it again: {make_command('train', best.best.recipe)}")


def _images_shared_out(rows: Sequence[Row]) -> int | None:
    """Images of the validation split, where the ranked figure is a share of them; None where it is not."""
    file = rows[0].best.run_dir / "manifest.json" if rows else None
    if file is None or not file.exists():
        return None
    metric = rows[0].best.metric
    return assembly.images_shared_out(file.read_text(), metric)
