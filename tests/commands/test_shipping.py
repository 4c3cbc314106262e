"""A run on its way out, as a user types it: trained, shown pictures, exported twice, asked by the sample alone."""

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

import pytest

from tests.training.test_experiment import arguments


@pytest.fixture(scope="module")
def shipped(trellis, tiny, tmp_path_factory):
    """A trained classifier, the overrides that name it, and pictures that it has never seen."""
    folder = tmp_path_factory.mktemp("shipped")
    trellis("train", *arguments(tiny, folder, "resnet", "run"))
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

    printed = trellis("export", *here, "formats=[tflite,tflite_int8]", "max_mb=0.001", code=1)
    assert "tflite: max_mb=0.001 is broken" in printed
    card = card_of(run)
    row, int8 = card["tflite"], card["tflite_int8"]
    assert row["status"] == "ok" and row["agreement"] == 1 and row["images"] == 10
    best = json.loads((run / "summary.json").read_text())["metrics"]["best_accuracy"]
    assert row["checkpoint"] == pytest.approx(best)
    assert 0 < row["one_thread"]["p50_ms"] <= row["one_thread"]["p95_ms"]
    assert int8["status"] == "ok" or "most is lost in" in int8["status"]
    trellis("export", *here, "formats=[tflite]")
    assert card_of(run)["tflite"]["sha256"] == row["sha256"]
    bare = tmp_path / "bare"
    shutil.copytree(run, bare, ignore=shutil.ignore_patterns("checkpoints", "exports"))
    printed = trellis("export", f"run={bare}", *here[1:], "formats=[tflite]", code=2)
    assert "no checkpoint" in printed and "make train" in printed

    names = sorted(found)
    sample = run / "exports" / "tflite" / "sample.py"
    command = [sys.executable, str(sample), *(str(pictures / name) for name in names)]
    asked = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert [line.split()[-2] for line in asked.stdout.splitlines()] == [found[n] for n in names]
    model = run / "exports" / "tflite" / "tflite.tflite"
    # A file that has come without its run.
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(model, tmp_path / "elsewhere")
    trellis("predict", f"model={tmp_path / 'elsewhere' / model.name}", f"images={pictures}")
    assert classes_of(tmp_path / "elsewhere") == found


@pytest.mark.slow
def test_a_saved_model_answers_bytes_and_is_served(trellis, shipped, served):
    run, here, pictures = shipped
    trellis("export", *here, "formats=[saved_model]")
    row = card_of(run)["saved_model"]
    assert row["status"] == "ok" and row["agreement"] == row["agreement_of_bytes"] == 1
    asked = served(trellis, here)
    picture = next(pictures.glob("*/*.png"))
    image = base64.b64encode(picture.read_bytes()).decode()
    status, answer = asked({"dataframe_records": [{"image": image}]})
    assert status == 200
    found = answer["predictions"][0]
    assert found["class"] == max(found["probabilities"], key=found["probabilities"].get)
    none = base64.b64encode(b"no picture").decode()
    for record, why in (
        ({"image": "!"}, "no base64"),
        ({"image": none}, "no JPEG or PNG"),
        ({"picture": image}, "image"),
    ):
        status, answer = asked({"dataframe_records": [record]})
        assert status == 400 and why in answer["message"], answer


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
        until = time.monotonic() + 120
        while time.monotonic() < until and processes[0].poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/ping")
                break
            time.sleep(0.3)
        return lambda body: ask(f"{url}/invocations", body)

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=30)


def ask(url: str, body: dict) -> tuple[int, dict]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
