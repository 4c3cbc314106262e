"""What counts beside settings and data: a finished trial is taken for one only where nothing else has changed."""

import pytest

from pipelines import config
from pipelines.commands import sweep
from pipelines.sweeps import circumstances, commandline
from pipelines.sweeps.ledger import Ledger
from pipelines.sweeps.schedule import Schedule
from pipelines.sweeps.space import Parameter, Space
from pipelines.system import processes

PACKAGES = ["numpy==2.3.5", "pytest==9.0.0", "tensorflow==2.20.0"]


@pytest.fixture
def tree(tmp_path):
    """A source tree to change."""
    for name in circumstances.SOURCES:
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "room.py").write_text("x = 1\n")
    return tmp_path / "tree"


def test_source_counts_and_what_lies_beside_it_does_not(tree):
    before = circumstances.code(root=tree)
    (tree / "README.md").write_text("new")
    (tree / "conf" / "experiment.yaml").write_text("name: other")
    (tree / "pipelines" / "__pycache__").mkdir()
    (tree / "pipelines" / "__pycache__" / "room.pyc").write_text("x")
    assert circumstances.code(root=tree) == before
    for name in circumstances.SOURCES:
        changed = tree / name / "room.py"
        changed.write_text(f"x = '{name}'\n")
        assert circumstances.code(root=tree) != before
        before = circumstances.code(root=tree)


def test_modules_of_the_users_own_count_and_installed_ones_by_their_version(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = circumstances.code(["my_losses"])
    assert circumstances.code(["yaml", "sys", "no_such_module"]) == circumstances.code() != before
    (tmp_path / "my_losses.py").write_text("x = 2\n")
    assert circumstances.code(["my_losses"]) != before


def test_libraries_that_compute_the_processor_and_the_content_of_starting_weights_count(
    tmp_path, monkeypatch
):
    # A runtime set up in this process before may have turned it on.
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    (tmp_path / "ckpt-1.index").write_text("one")
    (tmp_path / "ckpt-10.index").write_text("another checkpoint")
    cfg = config.compose(["experiment=resnet", f"task.init_checkpoint={tmp_path / 'ckpt-1'}"])
    found = circumstances.describe(cfg, PACKAGES)
    assert found["libraries"] == {"numpy": "2.3.5", "tensorflow": "2.20.0"} and found["processor"]
    (tmp_path / "ckpt-10.index").write_text("changed")
    assert circumstances.describe(cfg, PACKAGES) == found
    (tmp_path / "ckpt-1.index").write_text("two")
    changed = circumstances.describe(cfg, PACKAGES)
    assert config.differences(found, changed)[0].startswith("starting weights: ")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert config.differences(changed, circumstances.describe(cfg, PACKAGES)) == [
        "variables.TF_ENABLE_ONEDNN_OPTS: None -> 0"
    ]


@pytest.fixture
def lay_out(tmp_path, monkeypatch):
    """A sweep over two seeds as the command lays it out, its data already found."""
    monkeypatch.setattr(sweep._Trials, "_fingerprint", lambda self, cfg: "f1")

    def schedule(*more: str, packages: tuple = tuple(PACKAGES)) -> Schedule:
        request = commandline.read(["experiment=resnet", *more])
        made = sweep._Trials(config.compose([*request.fixed, *request.own]), request, tmp_path)
        made._packages = list(packages)
        space = Space("grid", (Parameter("seed", (1, 2)),))
        return Schedule(
            space,
            Ledger(tmp_path / "ledger.jsonl"),
            made.prepare,
            summary=lambda run_dir: {},
            occupied=lambda run_dir: False,
        )

    return schedule


def finish(schedule: Schedule) -> None:
    for trial in schedule.trials:
        trial.take(None, {"headline": {"metric": "accuracy", "value": 0.5}})
        schedule._note(trial)


def test_a_finished_trial_is_trained_anew_under_other_circumstances_and_the_reason_is_told(lay_out):
    first = lay_out()
    finish(first)
    again = lay_out("jobs=2", "flight=off")
    assert all(trial.earlier and trial.anew is None for trial in again.trials)
    other = lay_out(packages=("numpy==2.4.0", "tensorflow==2.20.0", "ruff==1"))
    assert [trial.anew for trial in other.trials] == ["libraries.numpy: 2.3.5 -> 2.4.0"] * 2
    assert not any(trial.earlier for trial in other.trials)
    assert {trial.run_dir for trial in other.trials} & {
        trial.run_dir for trial in first.trials
    } == set()
    finish(other)
    assert all(trial.earlier for trial in lay_out().trials)  # Those of before are kept too.


def test_a_trial_that_is_resumed_keeps_its_thread_counts_whatever_its_share_is_now(lay_out):
    free = ("threads.intra_op=null", "threads.inter_op=null")
    trial = lay_out(*free, "jobs=1").trials[0]
    recorded = config.compose(["experiment=resnet", "threads.intra_op=7", "threads.inter_op=5"])
    trial.run_dir.mkdir()
    (trial.run_dir / "config.yaml").write_text(config.to_yaml(recorded))
    resumed, fresh = lay_out(*free, "jobs=2").trials
    assert resumed.run_dir == trial.run_dir
    assert resumed.recipe[-2:] == ["threads.intra_op=7", "threads.inter_op=5"]
    assert fresh.recipe[-1:] == [f"threads.inter_op={processes.share(2)}"]
