"""The course of a sweep with trials that are over at once: what is run, what is not, what is remembered."""

import contextlib
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipelines import config
from pipelines.commands import sweep as sweep_command
from pipelines.sweeps import commandline, picture, ranking, schedule
from pipelines.sweeps.display import Display
from pipelines.sweeps.ledger import Ledger
from pipelines.sweeps.schedule import Schedule
from pipelines.sweeps.space import Parameter, Space
from pipelines.sweeps.trial import Trial
from pipelines.usage import UsageError


class Quiet:
    def changed(self, trial: Trial) -> None: ...
    def refresh(self, every: list) -> None: ...


def read(run_dir: Path) -> dict:
    path = run_dir / "summary.json"
    return json.loads(path.read_text()) if path.exists() else {}


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Lays out a sweep whose trials are found finished in their run directories, but for those in `bad`."""
    monkeypatch.setattr(schedule, "INTERVAL_S", 0.01)

    def lay_out(space: Space, bad: tuple = (), bad_seed: int | None = None, **options) -> Schedule:
        def prepare(point: dict) -> Trial:
            name = "-".join(f"{key}{value}" for key, value in point.items())
            run_dir = tmp_path / name
            run_dir.mkdir(exist_ok=True)
            if point.get("x") not in bad and point.get("seed", 0) != bad_seed:
                value = -abs(point["x"] - 0.7) + point.get("seed", 0) / 100
                found = {
                    "status": "finished",
                    "headline": {"metric": "accuracy", "value": value},
                    "metrics": {"loss": value},
                }
                (run_dir / "summary.json").write_text(json.dumps(found))
            return Trial(name, point, ["experiment=nowhere"], run_dir)

        return Schedule(
            space,
            Ledger(tmp_path / "ledger.jsonl"),
            prepare,
            summary=read,
            occupied=lambda run_dir: False,
            **options,
        )

    return lay_out


def events(tmp_path: Path, event: str) -> list[dict]:
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]


GRID = Space("grid", (Parameter("x", (0.1, 0.7)),), around=(Parameter("seed", (1, 2)),))


def test_a_bad_trial_gives_its_reason_and_ends_nothing(sweep, tmp_path):
    laid = sweep(GRID, bad=(0.7,), jobs=2)
    laid.run(Quiet(), lambda: None)
    assert [trial.state for trial in laid.trials] == ["finished", "finished", "failed", "failed"]
    assert laid.trials[2].reason.startswith("no experiment 'nowhere'")
    assert len(events(tmp_path, "started")) == len(events(tmp_path, "failed")) == 2


def test_the_same_sweep_again_runs_only_what_failed(sweep, tmp_path):
    sweep(GRID, bad=(0.7,), jobs=2).run(Quiet(), lambda: None)
    again = sweep(GRID)
    assert [trial.earlier for trial in again.trials] == [True, True, False, False]
    again.run(Quiet(), lambda: None)
    assert len(events(tmp_path, "finished")) == 4
    rows = ranking.rank(again.trials, "maximize")
    assert [row.settings for row in rows] == [{"x": 0.7}, {"x": 0.1}] and len(rows[0].trials) == 2
    assert rows[0].mean == pytest.approx(0.015)
    again = sweep(GRID)
    again.run(Quiet(), lambda: None)
    assert len(events(tmp_path, "finished")) == 4


def seeded(tmp_path: Path, rate: float, *values: float | None) -> list[Trial]:
    """Trials of one learning rate, a seed each; None: failed."""
    return [
        Trial(
            f"{rate}/{seed}", {"learning_rate": rate, "seed": seed}, [], tmp_path,
            state="failed" if value is None else "finished", value=value, metric="accuracy",
        )
        for seed, value in enumerate(values)
    ]  # fmt: skip


def test_settings_with_a_failed_seed_are_listed_below_and_never_the_best(tmp_path):
    trials = [*seeded(tmp_path, 1.0, 0.9, None, None), *seeded(tmp_path, 0.1, 0.7, 0.8)]
    rows = ranking.rank(trials, "maximize")
    assert [(row.settings["learning_rate"], row.missing) for row in rows] == [(0.1, 0), (1.0, 2)]
    first, second = ranking.as_text(rows).splitlines()[1:]
    assert first.startswith("1 ") and second.startswith("- ") and "2 of 3 missing" in second
    assert ranking.as_csv(rows).splitlines()[2].startswith(",accuracy,0.9,0.9,0.9,1,2,")
    assert ranking.as_summary(trials, rows)["headline"]["value"] == pytest.approx(0.75)
    picture.draw(rows, "title", tmp_path / "ranking.png")


def test_where_no_settings_have_every_seed_there_is_no_best(tmp_path):
    trials = seeded(tmp_path, 1.0, 0.9, None)
    rows = ranking.rank(trials, "minimize")
    found = ranking.as_summary(trials, rows)
    assert found["best"] is None and found["headline"] == {"metric": None, "value": None}
    assert ranking.winner(rows) is None and ranking.winner([]) is None


def test_tpe_is_told_a_failure_where_a_seed_failed(sweep, monkeypatch):
    told = []
    official = schedule.proposals.suggest

    def suggest(space, past, pending):
        told.append([value for _, value in past])
        return official(space, past, pending)

    monkeypatch.setattr(schedule.proposals, "suggest", suggest)
    space = Space(
        "tpe",
        (Parameter("x", low=0.0, high=1.0),),
        around=(Parameter("seed", (1, 2)),),
        trials=3,
        seed=3,
    )
    sweep(space, bad_seed=2).run(Quiet(), lambda: None)
    assert told[-1] == [None, None]


def test_a_space_that_grows_keeps_what_is_finished(sweep, tmp_path):
    sweep(GRID).run(Quiet(), lambda: None)
    wider = Space("grid", GRID.parameters, around=(Parameter("seed", (1, 2, 3)),))
    assert sum(trial.earlier for trial in sweep(wider).trials) == 4


def test_a_line_that_a_kill_left_unfinished_is_cut_off(sweep, tmp_path):
    sweep(GRID).run(Quiet(), lambda: None)
    with (tmp_path / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"event": "fini')
    again = sweep(GRID)
    again.ledger.write("started", trial="x")
    assert all(trial.earlier for trial in sweep(GRID).trials)


@pytest.mark.parametrize("jobs", [1, 3])
def test_tpe_goes_on_after_a_kill_as_if_nothing_had_happened(sweep, tmp_path, jobs):
    space = Space("tpe", (Parameter("x", low=0.0, high=1.0),), trials=10, seed=3)
    whole = sweep(space, jobs=jobs)
    whole.run(Quiet(), lambda: None)
    straight = [trial.settings for trial in whole.trials]
    assert len(straight) == 10
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines(keepends=True)
    for kept in (5, 12):
        (tmp_path / "ledger.jsonl").write_text("".join(lines[:kept]))
        again = sweep(space, jobs=jobs)
        again.run(Quiet(), lambda: None)
        assert [trial.settings for trial in again.trials] == straight


def test_an_interrupt_stops_the_trials_and_is_written_down(sweep, tmp_path):
    laid = sweep(GRID, bad=(0.1, 0.7))
    calls = []

    def check() -> None:
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        laid.run(Quiet(), check)
    assert laid.trials[0].state == "interrupted" and len(events(tmp_path, "interrupted")) == 1


def test_no_trial_starts_once_the_source_has_been_edited(sweep, tmp_path, monkeypatch):
    request = commandline.read(["experiment=resnet", "seed=1,2"])
    made = sweep_command._Trials(config.compose(request.fixed), request, tmp_path)
    made.refuse_other_code()
    monkeypatch.setattr(made, "_code", "as it was")
    laid = sweep(GRID, bad=(0.1, 0.7), unchanged=made.refuse_other_code)
    with pytest.raises(UsageError, match="has changed since the sweep began"):
        laid.run(Quiet(), lambda: None)
    assert events(tmp_path, "started") == []


def test_a_trial_ends_with_its_sweep(tmp_path):
    overrides = ["experiment=resnet", f"data_dir={tmp_path}", f"run_dir={tmp_path}/run"]
    script = (
        "import time; from pathlib import Path; from pipelines.sweeps.job import Job\n"
        f"job = Job({overrides}, Path('{tmp_path}/run'))\n"
        "print(job.process.pid, flush=True); time.sleep(600)"
    )
    sweep = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pid = int(sweep.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    sweep.kill()
    sweep.wait()
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(120)


def test_another_metric_than_the_headline_may_be_ranked(sweep):
    laid = sweep(GRID, metric="loss")
    laid.run(Quiet(), lambda: None)
    assert {trial.metric for trial in laid.trials} == {"loss"}
    missing = sweep(Space("grid", (Parameter("x", (0.2,)),)), metric="AP")
    missing.run(Quiet(), lambda: None)
    assert "metrics of the evaluation: loss" in missing.trials[0].reason


def test_the_ranking_is_drawn_and_written_for_any_settings(tmp_path):
    trials = []
    for number, kind, seed in itertools.product(range(4), ("sgd", "adamw"), (1, 2)):
        settings = {"a.learning_rate": 0.1 * 2**number, "a.type": kind, "seed": seed}
        trials.append(
            Trial(
                str(number),
                settings,
                [],
                tmp_path,
                state="finished",
                value=0.5 + number / 10,
                metric="accuracy",
            )
        )
    rows = ranking.rank(trials, "minimize")
    assert rows[0].settings == {"a.learning_rate": 0.1, "a.type": "sgd"}
    picture.draw(rows, "title", tmp_path / "ranking.png")
    assert (tmp_path / "ranking.png").read_bytes().startswith(b"\x89PNG")
    assert ranking.as_csv(rows).count("\n") == 9
    assert "0.1" in ranking.as_text(rows).splitlines()[1]
    assert ranking.as_text([]) == "no trial has finished"


def test_a_terminal_shows_a_table_and_a_pipe_a_line_for_each_event(tmp_path):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    trial = Trial(
        "t",
        {"task.model.input_size": [32, 32]},
        [],
        tmp_path,
        state="failed",
        reason="no [/such] thing",
    )
    for stream, expected in (
        (io.StringIO(), "trial input_size=[32,32]: failed: no [/such] thing\n"),
        (Terminal(), "1 failed"),
    ):
        with Display("maximize", stream) as display:
            display.refresh([trial])
            display.changed(trial)
        assert expected in stream.getvalue() and "no [/such] thing" in stream.getvalue()
