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

FORMATS = "formats=[saved_model,tflite,tflite_int8]"


@pytest.mark.slow
def test_a_classifier_is_shown_pictures_exported_and_asked(trellis, tiny, tmp_path, served):
    trellis("train", *arguments(tiny, tmp_path, "resnet", "run"))
    run, data = tmp_path / "run", tiny["classification"][-1]
    here = [f"run={run}", f"runs_dir={tmp_path}", data]
    pictures = tmp_path / "pictures"
    source = tiny["classification"][1].split("validation: '")[1].split("'")[0]
    shutil.copytree(source, pictures)
    (pictures / "none.jpg").write_text("no picture")
    printed = trellis("predict", *here, f"images={pictures}", code=1)
    assert "skipped none.jpg" in printed and "10 pictures" in printed and "1 skipped" in printed
    found = run / "predictions" / "pictures"
    rows = {row["picture"]: row for row in csv.DictReader((found / "classes.csv").open())}
    assert len(rows) == len(list((found / "drawn").iterdir())) == 10
    assert (found / "sheet.png").exists()

    printed = trellis("export", *here, FORMATS, "max_mb=0.001", code=1)
    assert "tflite: max_mb=0.001 is broken" in printed
    exports = run / "exports"
    card = {
        row["format"]: row for row in json.loads((exports / "card.json").read_text())["formats"]
    }
    summary = json.loads((run / "summary.json").read_text())
    for form in ("saved_model", "tflite"):
        row = card[form]
        assert row["status"] == "ok" and row["agreement"] == 1 and row["images"] == 10
        assert row["checkpoint"] == pytest.approx(summary["metrics"]["best_accuracy"])
        assert 0 < row["one_thread"]["p50_ms"] <= row["one_thread"]["p95_ms"]
    assert card["saved_model"]["agreement_of_bytes"] == 1
    int8 = card["tflite_int8"]
    assert int8["status"] == "ok" or "most is lost in" in int8["status"]

    trellis("export", *here, "formats=[saved_model,tflite]")
    again = {
        row["format"]: row for row in json.loads((exports / "card.json").read_text())["formats"]
    }
    for form in ("saved_model", "tflite"):
        assert again[form]["sha256"] == card[form]["sha256"], form

    names = sorted(rows)
    sample = exports / "tflite" / "sample.py"
    words = subprocess.run(
        [sys.executable, str(sample), *(str(pictures / name) for name in names)],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    ).stdout  # fmt: skip
    classes = [line.split()[-2] for line in words.splitlines()]
    assert classes == [rows[name]["class"] for name in names]

    model = exports / "tflite" / "tflite.tflite"
    trellis("predict", f"model={model}", f"runs_dir={tmp_path}", f"images={pictures}", code=1)
    of_file = {
        row["picture"]: row["class"] for row in csv.DictReader((found / "classes.csv").open())
    }
    assert of_file == {name: row["class"] for name, row in rows.items()}

    asked = served(trellis, run, data, tmp_path)
    image = base64.b64encode((pictures / names[0]).read_bytes()).decode()
    status, answer = asked({"dataframe_records": [{"image": image}]})
    assert status == 200 and answer["predictions"][0]["class"] == rows[names[0]]["class"]
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

    def start(trellis, run, data, runs_dir):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        place = [f"run={run}", f"runs_dir={runs_dir}", data, f"port={port}"]
        processes.append(trellis.start("serve", *place))
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
