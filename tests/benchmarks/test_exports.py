"""The table of formats: it stands for what is kept, cell for cell, and what is kept is not measured again."""

from benchmarks import exports
from benchmarks.exports import FORMATS
from benchmarks.serving import Answer, summary
from pipelines.shipping import card, formats

ROW = {
    "format": "tflite",
    "status": "ok",
    "metric": "accuracy",
    "checkpoint": 0.52,
    "figure": 0.5,
    "change": -0.02,
    "agreement": 0.995,
    "images": 360,
    "size": [32, 32],
    "bytes": 3_000_000,
    "all_threads": {"p50_ms": 1.0, "p95_ms": 3.0, "peak_mb": 60.0},
}
REFUSED = {"format": "onnx", "status": "refused: because"}


def kept_of(*rows, steps=88):
    """What is kept of a ship card."""
    head, rule, *lines = card.markdown(rows).splitlines()
    kept = {}
    for row, line in zip(rows, lines, strict=True):
        told = {"machine": "a machine", "head": [head, rule], "line": line}
        kept[row["format"]] = {**row, **told}
    return {"steps": steps, "formats": kept}


def test_the_formats_are_those_of_an_export():
    assert FORMATS == formats.FORMATS


def test_what_is_kept_is_not_measured_again(tmp_path):
    kept = {}
    file = tmp_path / "exports.json"
    exports.keep(kept, "resnet", kept_of(ROW), file)
    exports.keep(kept, "resnet", kept_of(REFUSED), file)
    assert exports.read(file) == kept
    assert exports.lacking(kept, "resnet", ["onnx", "tfhub", "tflite"]) == ["tfhub"]
    exports.keep(kept, "resnet", kept_of(REFUSED, steps=99), file)
    assert exports.lacking(kept, "resnet", ["onnx", "tflite"]) == ["tflite"]


def test_the_page_has_a_cell_of_each_experiment_and_format():
    text = exports.block({"resnet": kept_of(ROW, REFUSED)})
    lines = text.splitlines()
    (first,) = (line for line in lines if line.startswith("| `resnet`"))
    assert "-2.00, 3.0 ms" in first and first.count(exports.LACKING) == len(FORMATS) - 2
    assert "of 88 steps: accuracy 0.5200 on 360 pictures of 32 x 32 px" in text
    assert "99.500%" in text and "refused: because" in text
    beginnings = [f"| {form} |" for form in FORMATS]
    rows = [line for line in lines if line.startswith(tuple(beginnings))]
    assert len(rows) == len(exports.SHORT) * len(FORMATS)


def test_only_what_stands_between_the_marks_is_written():
    page = f"before\n{exports.BEGIN}old\n{exports.END}after\n"
    written = exports.with_block(page, "new")
    assert written == f"before\n{exports.BEGIN}\nnew\n{exports.END}after\n"
    assert exports.with_block(written, "new") == written


def test_the_page_says_what_is_kept():
    text = exports.PAGE.read_text()
    assert exports.with_block(text, exports.block(exports.read())) == text


def test_every_cell_is_measured_or_refused_with_a_reason():
    kept = exports.read()
    for experiment in kept.values():
        for row in experiment["formats"].values():
            assert_says_something(row)


def assert_says_something(row):
    word, _, reason = row["status"].partition(": ")
    if word == card.OK:
        measured = row["all_threads"]["p95_ms"], row["one_thread"]["peak_mb"], row["bytes"]
        assert min(measured) > 0 and 0 <= row["figure"] <= 1
    else:
        assert word == "refused" and len(reason) > 10


def test_a_request_without_an_answer_is_an_error():
    answers = [Answer(200, 0.010), Answer(200, 0.030), Answer(0, 0.020)]
    line = summary(answers, seconds=2.0, clients=2)
    assert line.startswith("3 requests from 2 clients: 1 errors, 1.5 a second, p50 20 ms")
