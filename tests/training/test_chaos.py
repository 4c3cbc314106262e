"""What a run gives does not depend on how often it was killed: every task, at random moments.    make test-chaos

`CHAOS_KILLS` is the number of kills in each run, the first of them in an evaluation; `make test-chaos` sets more than the slow tests have.
"""

import json
import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipelines.training import checkpoints
from tests.training.test_experiment import arguments, check_run, summary

KILLS = int(os.environ.get("CHAOS_KILLS", "2"))
STEPS = 12
EVALUATED = STEPS // 2  # step of the first evaluation
MORE = {
    "resnet": ["task.model.dropout_rate=0.3", "trainer.optimizer_config.ema.average_decay=0.9"]
}  # states that are easily forgotten
METRICS = {
    "resnet": "accuracy",
    "retinanet": "AP",
    "maskrcnn": "mask_AP",
    "deeplabv3plus": "mean_iou",
}


def kill_once(trellis, command: list[str], moment: random.Random) -> None:
    """Starts a training and kills it when a random line has come, and some more time has passed."""
    process = trellis.start("train", *command)
    lines = moment.randint(1, STEPS // 2)
    for line in process.stdout:
        lines -= line.startswith("step ")
        if lines <= 0:
            break
    time.sleep(moment.uniform(0, 1))
    process.kill()
    process.communicate()


def kill_evaluating(trellis, command: list[str], run: Path) -> None:
    """Starts a training and kills it in its first evaluation, before that is recorded."""
    process = trellis.start("train", *command)
    while process.poll() is None and not (run / "checkpoints" / f"ckpt-{EVALUATED}.index").exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_a_run_killed_at_random_moments_ends_like_one_that_was_not(trellis, tiny, tmp_path, name):
    command = {
        run: arguments(tiny, tmp_path, name, run, f"trainer.train_steps={STEPS}", f"trainer.validation_interval={EVALUATED}",
            "trainer.checkpoint_interval=3", *MORE.get(name, []))
        for run in ("straight", "killed")
    }  # fmt: skip
    trellis("train", *command["straight"])
    straight = check_run(tmp_path, "straight", METRICS[name], STEPS)
    seed = int(os.environ.get("CHAOS_SEED", "0"))
    moment = random.Random(f"{name} {seed}")
    kill_evaluating(trellis, command["killed"], tmp_path / "killed")
    for _ in range(KILLS - 1):
        kill_once(trellis, command["killed"], moment)
    trellis("train", *command["killed"])
    killed = check_run(tmp_path, "killed", METRICS[name], STEPS)
    assert killed["weights_sha256"] == straight["weights_sha256"]
    assert killed["metrics"] == straight["metrics"]
    for which in ("best", "last"):
        assert_equal_checkpoints(
            *(checkpoint(tmp_path / run, which) for run in ("killed", "straight"))
        )
    recorded = flight(tmp_path / "straight")
    assert flight(tmp_path / "killed") == recorded
    assert (
        len({step["variables"] for step in recorded if "variables" in step}) == STEPS // 3 + 1
    )  # It did learn.
    if name == "maskrcnn":
        assert_evaluates_by_its_own_data(trellis, tmp_path)


def assert_evaluates_by_its_own_data(trellis, runs: Path) -> None:
    """The official Mask R-CNN writes the boxes to find where the command is typed, or takes a file that lies there."""
    folder = runs / "typed"
    folder.mkdir()
    lying = json.dumps({"images": [], "annotations": [], "categories": []})
    (folder / "annotation.json").write_text(lying)
    trellis("evaluate", f"run={runs / 'killed'}", f"runs_dir={runs}", cwd=folder)
    trained, evaluated = (summary(runs / "killed" / part) for part in (".", "evaluation"))
    assert evaluated["headline"]["value"] == trained["metrics"]["best_mask_AP"]
    (folder / "annotation.json").unlink()
    assert not [file for file in folder.iterdir() if file.is_file()]


def checkpoint(run_dir: Path, which: str) -> str:
    """Prefix of a run's best or last checkpoint, the only one of the best."""
    folder = run_dir / "checkpoints" / ("best" if which == "best" else "")
    if which == "best":
        (prefix,) = [str(file.with_suffix("")) for file in folder.glob("*.index")]
        info = json.loads((folder / "info.json").read_text())
        assert info["best_ckpt_global_step"] == checkpoints.stored_step(prefix)
        return prefix
    return tf.train.latest_checkpoint(str(folder))


def assert_equal_checkpoints(one: str, other: str) -> None:
    """Everything in them is equal, statistics and slots too, but the number of times that was saved."""
    assert Path(one).name == Path(other).name
    assert (Path(one).parent / "info.json").exists() == (Path(other).parent / "info.json").exists()
    if (Path(one).parent / "info.json").exists():
        assert (Path(one).parent / "info.json").read_text() == (
            Path(other).parent / "info.json"
        ).read_text()
    readers = [tf.train.load_checkpoint(prefix) for prefix in (one, other)]
    names = [sorted(reader.get_variable_to_shape_map()) for reader in readers]
    assert names[0] == names[1]
    assert any("moving_mean" in name for name in names[0])
    for name in names[0]:
        if not name.startswith(("save_counter", "_CHECKPOINTABLE_OBJECT_GRAPH")):
            values = [np.asarray(reader.get_tensor(name)).tobytes() for reader in readers]
            assert values[0] == values[1], name


def flight(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "flight.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_bisection_names_what_parted_first(trellis, tiny, tmp_path):
    images = Path(tiny["classification"][1].partition("train: '")[2].partition("'")[0]).parent
    shutil.copytree(images / "train", tmp_path / "fewer")
    next((tmp_path / "fewer" / "0").iterdir()).unlink()
    train = {
        "base": [],
        "seed": ["seed=1"],
        "order": [f"dataset.images.train={tmp_path / 'fewer'}"],
        "inputs": ["task.train_data.aug_rand_hflip=true"],
        "rate": ["trainer.optimizer_config.optimizer.sgd.momentum=0.5"],
    }
    for run, more in train.items():
        trellis("train", *arguments(tiny, tmp_path, "resnet", run, *more))
    assert summary(tmp_path / "base")["status"] == "finished"

    def bisect(one: str, other: str, code: int) -> str:
        return trellis(
            "bisect",
            f"run={tmp_path / one}",
            f"against={tmp_path / other}",
            f"runs_dir={tmp_path}",
            code=code,
        )

    assert "agree in every step" in bisect("base", "base", 0)
    assert "part at step 0, first in the initial weights" in bisect("base", "seed", 1)
    assert "part at step 1, first in the records" in bisect("base", "order", 1)
    assert "part at step 1, first in the inputs after augmentation" in bisect("base", "inputs", 1)
    assert "first in the arithmetic" in bisect("base", "rate", 1)
