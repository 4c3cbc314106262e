"""An export around its formats: what is refused before anything starts, processes that take too much or die, limits."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.commands import export
from pipelines.config import compose
from pipelines.shipping import card
from pipelines.usage import UsageError

ROW = {
    "format": "tflite",
    "status": "ok",
    "figure": 0.5,
    "change": -0.02,
    "interval": [-0.03, 0.01],
    "agreement": 0.995,
    "bytes": 3_000_000,
    "one_thread": {"p50_ms": 2.0, "p95_ms": 4.0, "peak_mb": 50.0},
    "all_threads": {"p50_ms": 1.0, "p95_ms": 3.0, "peak_mb": 60.0},
}
NO_LIMIT = {"max_ms": None, "max_mb": None, "max_drop": None}


def child(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_format_that_there_is_not_is_refused_with_the_nearest_that_there_is():
    with pytest.raises(UsageError, match="tflite_int8"):
        export.main(["run=somewhere", "formats=[tflite_int]"])
    with pytest.raises(UsageError, match="FORMAT=saved_model"):
        export.main(["run=somewhere"])


def test_a_converter_that_takes_too_long_is_stopped_and_named():
    sleeping = child("import time; time.sleep(60)")
    assert "export_minutes=0.005" in export._watched(sleeping, 0.3, 1e12)
    assert sleeping.returncode is not None


def test_a_converter_that_takes_too_much_memory_is_stopped_and_named():
    growing = child("import time; kept = bytearray(200_000_000); time.sleep(60)")
    assert "export_gb=0.1" in export._watched(growing, 60, 1e8)
    assert growing.returncode is not None


def test_a_converter_that_dies_is_one_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("some words\n")
    dying = child("import os; os.kill(os.getpid(), 11)")
    assert export._watched(dying, 60, 1e12) is None
    assert "signal 11" in export._last_words(dying.returncode, log)
    assert export._last_words(1, log) == "failed: some words"


def test_a_model_that_cannot_be_exported_is_refused_and_has_not_failed(tmp_path):
    log = tmp_path / "log"
    log.write_text("2 threads\ntrellis: run: its model is a YoloTask's\n")
    assert export._last_words(2, log) == "refused: run: its model is a YoloTask's"


@pytest.mark.parametrize(
    ("limit", "most", "is_broken"),
    [
        ("max_ms", 2.9, True),
        ("max_ms", 3.1, False),
        ("max_mb", 2.9, True),
        ("max_mb", 3.1, False),
        ("max_drop", 1.9, True),
        ("max_drop", 2.1, False),
    ],
)
def test_a_limit_is_broken_by_more_than_it_allows(limit, most, is_broken):
    lines = card.broken(ROW, {**NO_LIMIT, limit: most})
    assert bool(lines) == is_broken
    assert all(limit in line for line in lines)


def test_the_card_says_the_same_in_each_of_its_forms(tmp_path):
    refused = {"format": "tflite_int8", "status": "refused: because"}
    document = {"title": "resnet: a machine", "formats": [ROW, refused]}
    files = card.write(document, tmp_path)
    assert [file.name for file in files] == ["card.json", "card.md", "card.png"]
    text = files[1].read_text()
    for words in ("-2.00 (-3.00 to +1.00)", "99.500%", "3.00", "1.0/3.0", "60", "refused: because"):
        assert words in text
    assert Path(files[2]).read_bytes().startswith(b"\x89PNG")


def test_the_card_names_what_int8_computes_in_floats(tmp_path):
    int8 = {**ROW, "format": "tflite_int8", "operations": 74, "float_operations": {"ADD_N": 1}}
    (line,) = card.notes([ROW, int8])
    assert line == "tflite_int8: 1 of 74 operations compute in floats: 1 ADD_N"
    files = card.write({"title": "resnet", "formats": [ROW, int8]}, tmp_path)
    assert line in files[1].read_text()
    whole = {**int8, "float_operations": {}}
    assert card.notes([whole]) == ["tflite_int8: none of 74 operations computes in floats"]


def test_the_card_keeps_what_an_earlier_export_has_left_there(tmp_path):
    (tmp_path / "a.tflite").write_text("a file")
    there = {**ROW, "file": "a.tflite"}
    gone = {**ROW, "format": "tfhub", "file": "tfhub"}
    title = {"title": "resnet", "machine": "a machine"}
    card.write({**title, "formats": [there, gone]}, tmp_path)
    now = {**title, "formats": [{**ROW, "format": "saved_model"}]}
    kept = card.with_earlier(now, tmp_path)["formats"]
    assert [row["format"] for row in kept] == ["saved_model", "tflite"]
    again = {**title, "formats": [{**there, "figure": 0.6}]}
    assert card.with_earlier(again, tmp_path)["formats"] == again["formats"]
    another = {**title, "formats": [{**ROW, "format": "saved_model", "step": 60}]}
    assert card.with_earlier(another, tmp_path) == another
    elsewhere = {**now, "machine": "another"}
    assert card.with_earlier(elsewhere, tmp_path) == elsewhere


def test_what_a_status_says_stays_in_its_cell():
    row = {"format": "onnx", "status": "refused: a | b\nand c"}
    assert r"| refused: a \| b and c |" in card.markdown([row])


def test_settings_of_shipping_are_no_part_of_a_result():
    from pipelines import config  # The roles of its fields.

    result = config.names(config.Config, config.RESULT)
    for name in ("images", "model", "min_score", "formats", "licence", "max_ms", "calibration"):
        assert name not in result and hasattr(compose([]), name)
