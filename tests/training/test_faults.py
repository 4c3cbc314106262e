"""What can go wrong on the way: what the user sees, and that nothing is lost."""

import resource
import shutil
from pathlib import Path

import pytest

from pipelines.training import checkpoints
from tests.training.test_experiment import arguments, check_run, summary


@pytest.fixture(scope="module")
def stopped(trellis, tiny, tmp_path_factory):
    """A run of four steps that ended after the second: its command, its folder."""
    runs = tmp_path_factory.mktemp("faults")
    command = arguments(tiny, runs, "resnet", "run")
    trellis("train", *command)
    straight = summary(runs / "run")
    folder = runs / "run" / "checkpoints"
    shutil.rmtree(folder / "best")
    for file in folder.glob("ckpt-4.*"):
        file.unlink()
    (folder / "checkpoint").write_text('model_checkpoint_path: "ckpt-2"\nall_model_checkpoint_paths: "ckpt-2"\n')
    return command, runs, straight


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_and_a_damaged_one_is_set_aside(trellis, stopped):
    command, runs, straight = stopped
    folder = runs / "run" / "checkpoints"
    size = (folder / "ckpt-2.data-00000-of-00001").stat().st_size

    # A limit on the size of files stands for the disk: the system refuses to write on.
    process = trellis.start("train", *command, limits={resource.RLIMIT_FSIZE: size // 2})
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 1, printed
    assert "could not be saved" in printed and "the last whole one: " in printed and "ckpt-2" in printed
    assert f"make train RUN={runs / 'run'}" in printed and "Traceback" not in printed

    newest = folder / "ckpt-9.data-00000-of-00001"
    newest.write_bytes((folder / "ckpt-2.data-00000-of-00001").read_bytes()[: size // 2])
    (folder / "ckpt-9.index").write_bytes((folder / "ckpt-2.index").read_bytes())
    (folder / "checkpoint").write_text('model_checkpoint_path: "ckpt-9"\nall_model_checkpoint_paths: "ckpt-9"\n')
    printed = trellis("train", *command)
    assert "ckpt-9 is damaged" in printed and "going on from" in printed and "ckpt-2" in printed
    assert check_run(runs, "run", "accuracy")["weights_sha256"] == straight["weights_sha256"]


def test_without_a_whole_checkpoint_a_run_starts_anew(tmp_path):
    for step in (3, 12):
        (tmp_path / f"ckpt-{step}.index").write_bytes(b"nonsense")
        (tmp_path / f"ckpt-{step}.data-00000-of-00001").write_bytes(b"")
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "info.json").write_text('{"best_')
    said: list[str] = []
    checkpoints.mend(tmp_path, said.append)
    assert [Path(line.split()[1]).name for line in said[:2]] == ["ckpt-12", "ckpt-3"]
    assert "starting from the first step" in said[2]
    assert not list(tmp_path.glob("ckpt-*")) and len(list(tmp_path.glob("damaged-*"))) == 4
    assert not (tmp_path / "best" / "info.json").exists()
