"""A run on its way out, as a user types it: trained, shown pictures, exported twice, asked by the sample alone."""

import csv
import json
import shutil
import subprocess
import sys

import pytest

from tests.training.test_experiment import arguments

FORMATS = "formats=[saved_model,tflite,tflite_int8]"


@pytest.mark.slow
def test_a_classifier_is_shown_pictures_exported_and_asked(trellis, tiny, tmp_path):
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
