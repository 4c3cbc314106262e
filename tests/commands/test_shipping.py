"""A run on its way out, as a user types it: trained, shown pictures, exported twice, asked in environments without this tool."""

import base64
import contextlib
import csv
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.training import checkpoints, inference
from tests.conftest import ROOT
from tests.shipping import environments
from tests.shipping.test_preprocessing import Run
from tests.training.test_experiment import arguments

LEARNING = [
    "trainer.train_steps=60",
    "trainer.validation_interval=60",
    "trainer.checkpoint_interval=60",
    "trainer.steps_per_loop=20",
    "trainer.summary_interval=20",
]
DWARFING = 1e5
# Shows a file pictures that lie in a store.
IN_A_BUCKET = """
import sys
from pathlib import Path
from pipelines.commands import predict
from tests.data import bucket
bucket.install()
bucket.upload(Path(sys.argv[1]), "gs://bucket/pictures")
sys.exit(predict.main([f"model={sys.argv[2]}", "images=gs://bucket/pictures"]))
"""
FORMATS = ["saved_model", "tfhub", "tflite_int8"]
# Writes a format once more, and prints its digest.
AGAIN = """
import sys
from pathlib import Path
from pipelines import assembly, config
from pipelines.shipping import conversion
folder, form, *overrides = sys.argv[1:]
source = assembly.shipped(config.compose(overrides), 10).source
print(form, conversion.sha256(conversion.write(source, form, Path(folder, form))))
"""


@pytest.fixture(scope="module")
def shipped(trellis, tiny, tmp_path_factory):
    """A trained classifier, the overrides that name it, and pictures that it has never seen."""
    folder = tmp_path_factory.mktemp("shipped")
    trellis("train", *arguments(tiny, folder, "resnet", "run", *LEARNING))
    source = tiny["classification"][1].split("validation: '")[1].split("'")[0]
    shutil.copytree(source, folder / "pictures")
    data = tiny["classification"][-1]
    return (
        folder / "run",
        [f"run={folder / 'run'}", f"runs_dir={folder}", data],
        folder / "pictures",
    )


def card_of(run) -> dict[str, dict]:
    rows = json.loads((run / "exports" / "card.json").read_text())["formats"]
    return {row["format"]: row for row in rows}


def classes_of(run) -> dict[str, str]:
    table = run / "predictions" / "pictures" / "classes.csv"
    return {row["picture"]: row["class"] for row in csv.DictReader(table.open())}


def classes_by(python: Path, folder: Path, pictures: list[Path], cwd: Path) -> list[str]:
    """The class of each picture by the sample beside an exported file."""
    return [line.split()[-2] for line in environments.asked(python, folder, pictures, cwd)]


def accuracy(classes: list[str], names: list[str]) -> float:
    """The share of pictures whose class is their folder's name."""
    right = [name.startswith(f"{label}/") for name, label in zip(names, classes, strict=True)]
    return sum(right) / len(right)


@pytest.mark.slow
def test_a_run_is_shown_pictures_exported_and_asked_by_the_sample_alone(trellis, shipped, tmp_path):
    run, here, pictures = shipped
    none = pictures / "none.jpg"
    none.write_text("no picture")
    printed = trellis("predict", *here, f"images={pictures}", code=1)
    none.unlink()
    assert "skipped none.jpg" in printed and "10 pictures" in printed and "1 skipped" in printed
    found = classes_of(run)
    predictions = run / "predictions" / "pictures"
    assert len(found) == len(list((predictions / "drawn").iterdir())) == 10
    assert (predictions / "sheet.png").exists()

    printed = trellis("export", *here, "formats=[tflite]", "max_mb=0.001", code=1)
    assert "tflite: max_mb=0.001 is broken" in printed
    row = card_of(run)["tflite"]
    assert row["status"] == "ok" and row["agreement"] == 1 and row["images"] == 10
    best = json.loads((run / "summary.json").read_text())["metrics"]["best_accuracy"]
    assert row["checkpoint"] == pytest.approx(best)
    assert 0 < row["one_thread"]["p50_ms"] <= row["one_thread"]["p95_ms"]
    trellis("export", *here, "formats=[tflite]")
    assert card_of(run)["tflite"]["sha256"] == row["sha256"]
    bare = tmp_path / "bare"
    shutil.copytree(run, bare, ignore=shutil.ignore_patterns("checkpoints", "exports"))
    printed = trellis("export", f"run={bare}", *here[1:], "formats=[tflite]", code=2)
    assert "no checkpoint" in printed and "make train" in printed

    names = sorted(found)
    arrays = []
    for number, name in enumerate(names):
        pixels = np.asarray(Image.open(pictures / name).convert("RGB"))
        arrays.append(tmp_path / f"{number}.npy")
        np.save(arrays[-1], pixels)
    python = environments.environment(tmp_path / "litert", "ai-edge-litert", "numpy")
    asked = classes_by(python, run / "exports" / "tflite", arrays, tmp_path)
    assert asked == [found[name] for name in names]
    assert accuracy(asked, names) == pytest.approx(row["figure"])
    model = run / "exports" / "tflite" / "tflite.tflite"
    # A file that has come without its run.
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(model, tmp_path / "elsewhere")
    there = tmp_path / "elsewhere"
    command = [sys.executable, "-c", IN_A_BUCKET, pictures, there / model.name]
    subprocess.run(command, cwd=ROOT, check=True)
    assert classes_of(there) == found


def make_coarse(run: Path, tiny) -> None:
    """Gives a channel of the first layer a value that dwarfs the others and that the next layer does not heed: int8 minds."""
    [index] = (run / "checkpoints" / "best").glob("*.index")
    prefix = str(index.with_suffix(""))
    model = inference.restore(Run(tiny, "resnet").params, prefix).model
    layers = model.backbone.layers
    first = next(layer for layer in layers if hasattr(layer, "beta"))
    values = first.beta.numpy()
    values[0] = DWARFING
    first.beta.assign(values)
    block = next(layer for layer in layers if hasattr(layer, "_conv1"))
    for convolution in (block._conv1, block._shortcut):
        kernel = convolution.kernel.numpy()
        kernel[:, :, 0] = 0
        convolution.kernel.assign(kernel)
    step = tf.Variable(checkpoints.stored_step(prefix), dtype=tf.int64)
    tf.train.Checkpoint(model=model, global_step=step).write(prefix)


@pytest.mark.slow
def test_int8_that_loses_too_much_is_refused_with_the_layer_that_loses_most(
    trellis, shipped, tiny, tmp_path
):
    run, here, _ = shipped
    coarse = tmp_path / "coarse"
    shutil.copytree(run, coarse, ignore=shutil.ignore_patterns("exports"))
    make_coarse(coarse, tiny)
    trellis("export", f"run={coarse}", *here[1:], "formats=[tflite_int8]", "calibration=10", code=1)
    status = card_of(coarse)["tflite_int8"]["status"]
    assert status.startswith("refused: the figure goes from")
    assert "most is lost in CONV_2D" in status
    assert not (coarse / "exports" / "tflite_int8").exists()


def written_again(folder: Path, overrides: list[str]) -> dict[str, str]:
    """The digests of other processes' files of the same checkpoint."""

    def told(form: str) -> str:
        command = [sys.executable, "-c", AGAIN, folder, form, *overrides]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    # Each in a process of its own, as an export has it: functions are numbered in the order of their tracing.
    with ThreadPoolExecutor() as processes:
        lines = [printed.splitlines()[-1] for printed in processes.map(told, FORMATS)]
    return dict(line.split() for line in lines)


@pytest.mark.slow
def test_a_saved_model_answers_bytes_and_is_served(trellis, shipped, served, tmp_path):
    run, here, pictures = shipped
    printed = trellis(
        "export", *here, f"formats={FORMATS}", "calibration=10", "step=last", "max_mb=0.001", code=1
    )
    card = card_of(run)
    row, int8 = card["saved_model"], card["tflite_int8"]
    assert int8["operations"] > 10 and "CONV_2D" not in int8["float_operations"]
    assert f"of {int8['operations']} operations" in printed
    again = written_again(tmp_path, here)
    assert again == {form: card[form]["sha256"] for form in FORMATS}
    assert (
        row["status"] == "ok"
        and row["step"] == 60
        and row["agreement"] == row["agreement_of_bytes"] == 1
    )
    names = sorted(str(picture.relative_to(pictures)) for picture in pictures.glob("*/*.png"))
    python = environments.environment(tmp_path / "tensorflow", "tensorflow")
    exported = run / "exports" / "saved_model"
    asked = classes_by(python, exported, [pictures / name for name in names], tmp_path)
    assert len(asked) == 10 and accuracy(asked, names) == pytest.approx(row["figure"])
    asked = served(trellis, here)
    picture = next(pictures.glob("*/*.png"))
    image = base64.b64encode(picture.read_bytes()).decode()
    status, answer = asked({"dataframe_records": [{"image": image}]})
    assert status == 200
    found = answer["predictions"][0]
    assert found["class"] == max(found["probabilities"], key=found["probabilities"].get)
    request = {"dataframe_records": [{"image": image}]}
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(asked, [request] * 200))
    assert {status for status, _ in answers} == {200}
    assert all(answer["predictions"] == [found] for _, answer in answers)
    none = base64.b64encode(b"no picture").decode()
    for record, why in (
        ({"image": "!"}, "no base64"),
        ({"image": none}, "no JPEG or PNG"),
        ({"picture": image}, "image"),
    ):
        status, answer = asked({"dataframe_records": [record]})
        assert status == 400 and why in answer["message"], answer


@pytest.mark.slow
def test_a_killed_converter_is_one_line_and_onnx_is_written_after_it(trellis, shipped, tmp_path):
    run, here, pictures = shipped
    shutil.rmtree(run / "exports", ignore_errors=True)
    exporting = trellis.start("export", *here, "formats=[tflite,onnx]")
    until = time.monotonic() + 600
    while not (run / "exports" / "tflite").is_dir() and time.monotonic() < until:
        time.sleep(0.05)
    [converter] = psutil.Process(exporting.pid).children()
    assert "--alone=tflite" in converter.cmdline()
    converter.kill()
    printed, _ = exporting.communicate(timeout=900)
    assert exporting.returncode == 1, printed
    card = card_of(run)
    assert card["tflite"]["status"].startswith("failed: the converter was ended by signal 9")
    assert not (run / "exports" / "tflite").exists()
    row = card["onnx"]
    assert row["status"] == "ok" and row["agreement"] == 1 and row["all_threads"]["p95_ms"] > 0

    trellis("export", *here, "formats=[onnx]")
    assert card_of(run)["onnx"]["sha256"] == row["sha256"]
    names = sorted(str(picture.relative_to(pictures)) for picture in pictures.glob("*/*.png"))
    python = environments.environment(tmp_path / "onnx", "onnxruntime", "numpy", "pillow")
    exported = run / "exports" / "onnx"
    asked = classes_by(python, exported, [pictures / name for name in names], tmp_path)
    assert accuracy(asked, names) == pytest.approx(row["figure"])
    shutil.copy(exported / "onnx.onnx", tmp_path)
    trellis("predict", f"model={tmp_path / 'onnx.onnx'}", f"images={pictures}")
    assert [classes_of(tmp_path)[name] for name in names] == asked


@pytest.fixture
def served():
    """Starts `make serve` and returns what asks it."""
    processes = []

    def start(trellis, here):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        processes.append(trellis.start("serve", *here, f"port={port}"))
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 600
        while time.monotonic() < until and processes[0].poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/ping")
                break
            time.sleep(0.3)
        return lambda body: ask(f"{url}/invocations", body)

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=120)


def ask(url: str, body: dict) -> tuple[int, dict]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
