"""`make tune`: what it tries, what it calls the rule's, what it writes."""

import pytest

from pipelines import assembly, config
from pipelines.commands import tune
from pipelines.system import processes
from pipelines.usage import UsageError


@pytest.mark.parametrize(("cores", "each"), [(1, {1}), (2, {1, 2}), (8, {1, 4, 8})])
def test_candidates_are_one_thread_half_the_cores_and_all_of_them(cores, each):
    choices = list(tune.candidates(cores))
    assert {choice.threads.intra_op for choice in choices} == each
    assert {choice.threads.inter_op for choice in choices} == {cores}
    assert {choice.onednn for choice in choices} == {"0", "1"}


def test_devices_that_are_no_cpu_are_refused_before_anything_is_built():
    with pytest.raises(UsageError, match="leave RUNTIME out"):
        tune.main(["experiment=resnet", "runtime=gpu"])


def test_the_runtime_that_is_written_is_one_that_a_training_can_choose(monkeypatch, tmp_path):
    folder = tmp_path / "conf"
    (folder / "runtime").mkdir(parents=True)
    monkeypatch.setattr(config, "FOLDER", folder)
    cfg = config.Config(name="resnet", data_dir="", runs_dir="", run_dir="")
    best = list(tune.candidates(4))[1]
    file = tune._write(cfg, "resnet", best, 1.2)
    assert file.name == "tuned_resnet.yaml"
    monkeypatch.undo()
    copied = config.FOLDER / "runtime" / "tuned_of_a_test.yaml"
    copied.write_text(file.read_text())
    try:
        chosen = config.compose(["experiment=resnet", "runtime=tuned_of_a_test"]).threads
    finally:
        copied.unlink()
    assert chosen == best.threads


@pytest.mark.slow
def test_a_machine_is_measured_through_real_trainings(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(processes, "cores", lambda: 2)
    first = [choice for choice in tune.candidates(2) if choice.onednn == "1"]
    monkeypatch.setattr(tune, "candidates", lambda cores: first)
    monkeypatch.setattr(tune, "ROUNDS", 1)
    monkeypatch.setattr(tune, "BLOCK_S", 0.1)
    monkeypatch.setattr(tune, "LEAST_GAIN", 100.0)
    batches = ["task.train_data.global_batch_size=8", "task.validation_data.global_batch_size=5"]
    recipe = ["experiment=resnet", *tiny["classification"], *batches, f"runs_dir={tmp_path}"]
    tune.main(recipe)
    printed = capsys.readouterr().out
    assert all(choice.rate > 0 for choice in first)
    assert "no runtime is needed" in printed
    (ruled,) = (line for line in printed.splitlines() if "by rule" in line)
    assert ruled.split()[1] == "1"  # half the cores for pictures of 32 pixels
    larger = config.compose([*recipe, "task.model.input_size=[128,128,3]"])
    assert tune._by_rule(assembly.prepared(larger), first).threads.intra_op == 2
