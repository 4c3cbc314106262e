"""Which exported file is asked."""

import json

import pytest

from pipelines.commands import predict
from pipelines.config import compose
from pipelines.shipping import metadata
from pipelines.usage import UsageError


def test_a_saved_model_is_found_in_the_folder_of_its_format(tmp_path):
    folder = tmp_path / "saved_model"
    assets = folder / "saved_model" / "assets"
    assets.mkdir(parents=True)
    (assets / "trellis.json").write_text(json.dumps({"task": "detection"}))
    for named in (folder, folder / "saved_model"):
        cfg = compose([f"model={named}"])
        assert predict._exported(cfg) == folder / "saved_model"
    assert predict._exported(compose([])) is None


@pytest.mark.parametrize(("form", "suffix"), [("tflite_int8", "tflite"), ("onnx", "onnx")])
def test_a_file_is_found_in_the_folder_of_its_format(tmp_path, monkeypatch, form, suffix):
    asked = []
    monkeypatch.setattr(metadata, "read", asked.append)
    file = tmp_path / form / f"{form}.{suffix}"
    file.parent.mkdir()
    file.touch()
    assert predict._exported(compose([f"model={file.parent}"])) == file
    assert asked == [file]


def test_a_model_that_is_not_there_or_not_ours_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(UsageError, match="there is no .*make export"):
        predict._exported(compose([f"model={tmp_path / 'a.tflite'}"]))
    (tmp_path / "a.tflite").write_bytes(b"another's")
    with pytest.raises(UsageError, match="not written by make export"):
        predict._exported(compose([f"model={tmp_path / 'a.tflite'}"]))
