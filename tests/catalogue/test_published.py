"""The table of published recipes, as `make list` prints it."""

import csv
import io
import json
import subprocess
import sys

import pytest

from pipelines import config
from pipelines.catalogue import published
from pipelines.commands import list as command
from pipelines.usage import UsageError


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert command.main(words) == 0
    return capsys.readouterr().out


def test_recipes_are_summed_up_unless_they_are_asked_for(capsys) -> None:
    text = printed(capsys)
    assert "132 recipes; make list ARGS=published" in text
    assert "published/coco" not in text and len(text.splitlines()) < 90


def test_the_table_chooses_and_orders(capsys) -> None:
    title, first, *others = printed(
        capsys, "published", "task=detection", "sort=value"
    ).splitlines()
    assert "percent" in title and first.startswith("coco/scaled_yolov4_p7_1536")
    names = [line.split()[0] for line in others]
    assert "coco/retinanet_r50fpn_640_72ep" in names and not [
        name for name in names if name.startswith("imagenet")
    ]


def test_what_no_source_says_is_a_dash_and_comes_last(capsys) -> None:
    lines = printed(capsys, "published", "data=imagenet", "sort=hours").splitlines()
    assert lines[1].split()[0] == "imagenet/mobilenetv3_large_qat_tpu"
    assert lines[1].split()[-1] == "2" and "2 h on TPU 4x4 DF, official/" in "\n".join(lines)
    assert lines[55].split()[-1] == "-"


def test_hours_that_nobody_says_are_estimated_and_marked() -> None:
    rows = {recipe.name: recipe for recipe in published.load()}
    # 3 passes of 97 billion multiply-adds, 256 pictures a step, 33,264 steps, by 3 times 17,400 times 4.1 billion a second.
    retinanet = rows["coco/retinanet_r50fpn_640_72ep"]
    assert retinanet.hours == pytest.approx(3.2, abs=0.06)
    assert "3 x 97 B x 256 x 33264 steps" in (retinanet.hours_source or "")
    # ResNet-50 itself, 90 epochs, takes what NVIDIA says of that machine: about two hours.
    resnet = published._estimated(
        {"model": "ResNet-50", "flops_b": 4.1, "batch": 4096, "steps": 28080}
    )
    assert 1.8 <= resnet["hours"] <= 2.0
    table = published.as_text([retinanet, rows["imagenet/maxvit_tiny_i224"]])
    assert "  ~3.2\n" in table and f"  >{rows['imagenet/maxvit_tiny_i224'].hours:g}\n" in table
    assert "measured by nobody" in table
    stated = published.as_text([rows["imagenet/resnet50_qat_gpu"]])
    assert "  120\n" in stated and "~" not in stated
    assert rows["imagenet/resnet50_90ep"].hours is None


def test_the_two_forms_for_machines_hold_every_column(capsys) -> None:
    rows = json.loads(printed(capsys, "published", "format=json"))
    table = list(csv.DictReader(io.StringIO(printed(capsys, "published", "format=csv"))))
    assert len(rows) == len(table) == 132
    assert set(rows[0]) == set(table[0]) == set(published.COLUMNS)
    (row,) = [row for row in rows if row["name"] == "coco/retinanet_spinenet49"]
    assert (row["value"], row["parameters_m"], row["flops_b"]) == (44.2, 28.5, 85.4)
    assert (row["steps"], row["batch"], row["input_size"]) == (231000, 256, "640x640")


@pytest.mark.parametrize("recipe", published.load()[::11], ids=lambda recipe: recipe.name)
def test_the_table_says_what_the_composed_recipe_does(recipe) -> None:
    cfg = config.compose([f"experiment=published/{recipe.name}"])
    assert cfg.trainer.get("train_steps", recipe.steps) == recipe.steps
    figure = cfg.figure
    assert (recipe.metric, recipe.value) == (
        (None, None) if figure is None else (figure.metric, pytest.approx(100 * figure.value))
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["publishd"], "did you mean published"),
        (["published", "task=detecton"], "did you mean detection"),
        (["published", "sort=valu"], "did you mean value"),
        (["published", "format=xml"], "there are: csv, json, table"),
        (["published", "detection"], "task=detection"),
    ],
)
def test_a_slip_of_the_pen_gets_the_nearest(words, says) -> None:
    with pytest.raises(UsageError, match=says):
        command.main(words)


def test_who_reads_no_further_is_no_error() -> None:
    command_line = f"{sys.executable} -m pipelines list published format=json | head -n 1"
    done = subprocess.run(command_line, shell=True, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[\n", "")


def test_the_table_imports_nothing_slow() -> None:
    script = (
        "import sys; from pipelines.commands import list as c; c.main(['published'])\n"
        "print('HEAVY', {'tensorflow', 'apache_beam', 'mlflow', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "HEAVY set()" in done.stdout
