"""The proof that equal runs are equal, and that it is this tree's code that is put to it."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.training.test_experiment import SMALL

DRAWING = """
import dataclasses

import tensorflow as tf
from official.core import exp_factory, task_factory
from official.vision.configs import image_classification as configs
from official.vision.tasks import image_classification


@dataclasses.dataclass
class GrainyTask(configs.ImageClassificationTask):
    pass


@task_factory.register_task_cls(GrainyTask)
class Grainy(image_classification.ImageClassificationTask):
    def train_step(self, inputs, model, optimizer, metrics=None):
        images, labels = inputs
        images += tf.raw_ops.RandomUniform(shape=tf.shape(images), dtype=tf.float32, name="grain")
        return super().train_step((images, labels), model, optimizer, metrics)


@exp_factory.register_config_factory("grainy")
def grainy():
    config = exp_factory.get_exp_config("resnet_imagenet")
    config.task = GrainyTask(**{field.name: getattr(config.task, field.name) for field in dataclasses.fields(config.task)})
    return config
"""


def chosen(tiny, *more: str) -> list[str]:
    return [
        "experiment=resnet",
        *tiny["classification"],
        *SMALL["resnet"],
        "trainer.optimizer_config.warmup.linear.warmup_steps=1",
        *more,
    ]


@pytest.mark.slow
def test_a_run_that_is_killed_ends_with_the_bits_of_one_left_alone(trellis, tiny):
    printed = trellis("check", "--determinism", *chosen(tiny)).strip().splitlines()
    assert printed[-1] == "equal in every bit"
    assert printed[-2] == "traced graphs: no operation draws what the seed does not fix"
    alone, killed = (line for line in printed if line.startswith("6 steps, "))
    assert alone.partition(": ")[2] == killed.partition(": ")[2]


@pytest.mark.slow
def test_what_is_proved_is_the_tree_that_was_called(tiny, tmp_path):
    for package in ("pipelines", "tasks", "conf"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    (tmp_path / "pipelines/commands/train.py").write_text(
        '"""No training."""\n\n\ndef main(overrides):\n    print("the copy was called")\n'
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "pipelines", "check", "--determinism", *chosen(tiny)]
    process = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert process.returncode == 2
    assert "a training of 6 steps ended before:\nthe copy was called" in process.stderr


@pytest.mark.slow
def test_a_step_that_draws_from_a_state_is_refused_and_may_be_trained_inexactly(
    trellis, tiny, tmp_path
):
    (tmp_path / "drawing.py").write_text(DRAWING)
    own = ["garden=grainy", "imports=[drawing]"]
    printed = trellis(
        "check", "--determinism", *chosen(tiny, *own), code=2, PYTHONPATH=str(tmp_path)
    )
    assert (
        "the training step draws with operations that cannot be repeated exactly: RandomUniform (grain)"
        in printed
    )
    assert "set determinism=off" in printed and "Traceback" not in printed
    short = [
        "trainer.train_steps=2",
        f"runs_dir={tmp_path}",
        f"run_dir={tmp_path / 'run'}",
        "determinism=off",
    ]
    trellis("train", *chosen(tiny, *own, *short), PYTHONPATH=str(tmp_path))
