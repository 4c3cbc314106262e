"""A checkpoint that somebody else has published, measured on the recipe's validation split."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import Figure
from pipelines.outcomes import Classes
from pipelines.reproduction import measured
from pipelines.reproduction.figure import NOT_REPRODUCED, REPRODUCED, RESCALED, Departures
from pipelines.reproduction.measured import Measured
from pipelines.usage import UsageError
from tests.training.test_experiment import arguments

FIGURE = Figure("accuracy", 0.76, 0.003, source="a table", others={"top_5_accuracy": 0.93})


def reached(accuracy: float, images: int = 1000, **others: float) -> Measured:
    truth = np.zeros(images, int)
    answer = (np.arange(images) >= round(accuracy * images)).astype(int)
    return Measured(
        "there/ckpt-9", "ab" * 32, 80, ["head/kernel"], True,
        {"accuracy": accuracy, **others}, {"accuracy": Classes(truth, answer, truth)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "word"),
    [(0.761, REPRODUCED), (0.758, REPRODUCED), (0.77, NOT_REPRODUCED), (0.7, NOT_REPRODUCED)],
)
def test_a_checkpoint_has_its_figure_within_the_margin_or_has_not(value, word):
    verdict = measured.judge(FIGURE, reached(value), Departures(), 1000)
    assert verdict.lines()[-1] == verdict.word == word
    document = json.loads(json.dumps(verdict.document(), allow_nan=False))
    assert document["word"] == word and document["images"] == 1000


def test_the_lines_name_the_file_what_was_not_wanted_and_the_interval_of_the_images():
    verdict = measured.judge(FIGURE, reached(0.76, top_5_accuracy=0.92), Departures(), 1000)
    text = "\n".join(verdict.lines())
    assert "there/ckpt-9 (abababababab), 80 variables, moving averages in their place" in text
    assert "saved and wanted by nothing: 1\n  head/kernel" in text
    low, high = verdict.interval.low, verdict.interval.high
    assert low == pytest.approx(0.733, abs=0.005) and high == pytest.approx(0.786, abs=0.005)
    assert f"over images like these 1000: {low:.4f} to {high:.4f} (95%)" in text
    assert "top_5_accuracy    0.9200    0.9300     -0.0100" in text


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("task.model.input_size: [224, 224, 3] -> [160, 160, 3]", True),
        ("task.validation_data.aug_crop: True -> False", True),
        ("dataset.name: imagenet2012 -> image_folder", True),
        ("examples.validation: 50000 -> 8", True),
        ("runtime.mixed_precision_dtype: bfloat16 -> float32", True),
        ("figure.margin: 0.003 -> 0.1", True),
        ("task.validation_data.global_batch_size: 4096 -> 8", False),
        ("task.train_data.global_batch_size: 4096 -> 8", False),
        ("task.losses.l2_weight_decay: 0.0001 -> 0.0", False),
        ("task.init_checkpoint: gs://there -> None", False),
        ("examples.train: 1281167 -> 8", False),
        ("trainer.train_steps: 28080 -> 3", False),
        ("epochs: None -> 1.0", False),
    ],
)
def test_departures_that_only_a_training_feels_do_not_count(line, is_one):
    verdict = measured.judge(FIGURE, reached(0.76), Departures(changed=(line,)), 1000)
    assert verdict.word == (RESCALED if is_one else REPRODUCED)
    assert (f"changed: {line}" in verdict.lines()) == is_one


def test_an_evaluation_that_left_images_out_is_rescaled():
    verdict = measured.judge(FIGURE, reached(0.76), Departures(), 1001)
    assert verdict.word == RESCALED and "changed: images: 1001 -> 1000" in verdict.lines()


def test_a_metric_that_the_evaluation_does_not_give_is_refused():
    with pytest.raises(UsageError, match=r"figure.metric: the evaluation has no 'AP'"):
        measured.judge(Figure("AP", 0.4, 0.01, source="a table"), reached(0.7), Departures(), 1000)


@pytest.mark.slow
def test_a_checkpoint_is_measured_as_its_own_run_was_and_nothing_is_trained(
    trellis, tiny, tmp_path
):
    averaging = "trainer.optimizer_config.ema={average_decay: 0.9}"
    settings = arguments(tiny, tmp_path, "resnet", "first", averaging)
    trellis("train", *settings)
    summary = json.loads((tmp_path / "first" / "summary.json").read_text())
    for checkpoint in (tmp_path / "first", tmp_path / "first" / "checkpoints" / "ckpt-4"):
        printed = trellis("reproduce", *settings, f"checkpoint={checkpoint}", code=3)
        *_, word, file = printed.strip().splitlines()
        document = json.loads(Path(file).read_text())
        assert word == document["word"] == "rescaled"
        for metric, value in document["metrics"].items():
            assert value == pytest.approx(summary["metrics"][metric], rel=1e-6)
        assert document["averaged"] == (checkpoint.name == "ckpt-4")
        assert document["interval"]["low"] <= summary["headline"]["value"]
        assert any(line.startswith("dataset.name") for line in document["departures"])
        assert not any(line.startswith("trainer") for line in document["departures"])
    assert not (tmp_path / "reproductions" / "summary.json").exists()
