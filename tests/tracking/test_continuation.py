"""Resuming a run: the same result, or refused with what differs and a command for each of the two wishes."""

import functools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import config
from pipelines.commands import train
from pipelines.tracking import continuation, runs
from pipelines.tracking.recording import Recorder
from pipelines.usage import UsageError

ROOT = Path(__file__).parent.parent.parent
BASE = ["experiment=resnet", "threads.intra_op=2", "threads.inter_op=2"]


composed = functools.cache(lambda *overrides: config.compose(overrides))


@pytest.fixture
def run(tmp_path):
    """Composes what a command line asks for in the directory of a recorded run."""

    def ask(*overrides: str) -> config.Config:
        folder = str(tmp_path)
        places = {
            "runs_dir": folder,
            "run_dir": f"{folder}/run",
            "data_dir": f"{folder}/data",
        }
        return config.anchored(replace(composed(*overrides), **places))

    Recorder(tmp_path / "run").begin(ask(*BASE))
    return ask


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=5", "seed: 0 -> 5"),
        (
            "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=5",
            "initial_learning_rate: ",
        ),
        ("epochs=99", "epochs: "),
        ("evaluations=3", "evaluations: 10 -> 3"),
        ("trainer.train_steps=7", "trainer.train_steps: None -> 7"),
        ("trainer.summary_interval=7", "trainer.summary_interval: "),
        ("task.model.x=1", "task.model.x: None -> 1"),
        ("threads.intra_op=7", "threads.intra_op: 2 -> 7"),
        ("runtime=mirrored", "runtime.distribution_strategy: one_device -> mirrored"),
        ("runtime.mixed_precision_dtype=bfloat16", "mixed_precision_dtype: "),
        ("scale_learning_rate=8", "scale_learning_rate: None -> 8"),
        ("imports=[json]", "imports: [] -> ['json']"),
        ("determinism=off", "determinism: True -> False"),
        ("dataset.validation_fraction=0.3", "dataset.validation_fraction: "),
        ("dataset=digit_scenes", "dataset.name: digits -> digit_scenes"),
        ("logical_cpus=2", "logical_cpus: None -> 2"),
        ("garden=other", "garden: "),
        ("name=other", "name: resnet -> other"),
    ],
)
def test_what_the_result_depends_on_may_not_change_and_both_wishes_get_a_command(
    run, override, line, tmp_path
):
    before = (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(UsageError) as error:
        train.run(run(*BASE, override))
    said = str(error.value)
    assert line in said
    assert f"make train RUN={tmp_path / 'run'}" in said and f"run_dir={tmp_path / 'run-2'}" in said
    assert (tmp_path / "run" / "config.yaml").read_text() == before


@pytest.mark.parametrize(
    "override",
    ["flight=off", "trainer.max_to_keep=2", "trainer.checkpoint_interval=3", "runner=dask", "jobs=3", "restarts=1",
     "dataset.max_reject_fraction=0.5", "dataset.validate=full", "figure.margin=0.5", "runtime.tpu=there",
     "task.train_data.input_path=x"],
)  # fmt: skip
def test_what_it_does_not_depend_on_may(run, override, tmp_path):
    asked = run(*BASE, override)
    assert continuation.settled(tmp_path / "run", asked) == asked


def test_the_documentation_lists_every_setting_that_may_differ():
    section = (
        (ROOT / "docs" / "faults.md")
        .read_text()
        .split("## What a resumed run may change\n")[1]
        .split("\n## ")[0]
    )
    free = (config.PLACE, config.GUARD, config.VERB, config.PASSIVE)
    ours = {
        *config.names(config.Config, *free),
        *(f"dataset.{name}" for name in config.names(config.Dataset, *free)),
    }
    told = set(re.findall(r"`([\w.*]+)`", section))
    assert ours - told == set()
    assert set(config.GARDEN_ROLES) - {name.rpartition(".")[2] for name in told} == set()


def test_another_machine_uses_the_thread_counts_that_were_recorded(run, tmp_path):
    settled = continuation.settled(
        tmp_path / "run", run("experiment=resnet", "threads.intra_op=null", "threads.inter_op=null")
    )
    assert settled.threads == config.Threads(2, 2)


def test_without_determinism_devices_and_threads_may_change_and_precision_may_not(run, tmp_path):
    directory = tmp_path / "free"
    Recorder(directory).begin(run(*BASE, "determinism=off"))
    asked = run(*BASE, "determinism=off", "runtime=mirrored", "threads.intra_op=7")
    assert continuation.settled(directory, asked) == asked
    continuation.refuse_other_devices(directory, asked, {"replicas": 3, "workers": 1})
    with pytest.raises(UsageError, match="mixed_precision_dtype"):
        continuation.settled(
            directory, run(*BASE, "determinism=off", "runtime.mixed_precision_dtype=bfloat16")
        )


def test_other_numbers_of_replicas_are_refused(run, tmp_path):
    file = tmp_path / "run" / "environment.json"
    file.write_text(json.dumps({"determinism_class": {"replicas": 2, "workers": 1}}))
    continuation.refuse_other_devices(tmp_path / "run", run(*BASE), {"replicas": 2, "workers": 1})
    with pytest.raises(UsageError, match="replicas: 2 -> 4"):
        continuation.refuse_other_devices(
            tmp_path / "run", run(*BASE), {"replicas": 4, "workers": 1}
        )


def test_data_of_another_content_are_refused(run, tmp_path):
    (tmp_path / "run" / "manifest.json").write_text('{"fingerprint": "before"}')
    continuation.refuse_other_data(tmp_path / "run", run(*BASE), "before")
    with pytest.raises(UsageError, match="fingerprint: before -> now"):
        continuation.refuse_other_data(tmp_path / "run", run(*BASE), "now")


@pytest.mark.parametrize(
    ("override", "line"),
    [("trainer.train_steps=9", "train_steps: None -> 9"), ("seed=3", "seed: 0 -> 3")],
)
def test_resuming_by_name_leaves_no_setting_out_silently(run, override, line, tmp_path):
    with pytest.raises(UsageError, match=line):
        train.run(run(override, f"run={tmp_path / 'run'}"))


def test_resuming_by_name_takes_the_recorded_settings(run, tmp_path):
    record = runs.find(str(tmp_path / "run"), run())
    recorded = config.from_yaml(record.texts["config.yaml"])
    assert continuation.resumed(run(f"run={tmp_path / 'run'}", "flight=off"), recorded) == recorded
