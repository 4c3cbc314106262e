"""What an exported file says of itself."""

import sys
import zipfile

import onnx
import pytest

from pipelines.shipping import formats, metadata
from pipelines.usage import UsageError

DOCUMENT = {"labels": ["cat", "dog"], "run": "abc"}


def test_metadata_behind_a_model_are_read_back_and_are_the_same_bytes_twice(tmp_path):
    once, again = (metadata.append(b"model" * 100, DOCUMENT) for _ in range(2))
    assert once == again and once.startswith(b"model" * 100)
    file = tmp_path / "a.tflite"
    file.write_bytes(once)
    assert metadata.read(file) == DOCUMENT
    with zipfile.ZipFile(file) as files:
        assert files.read(metadata.LABELS) == b"cat\ndog\n"


def test_metadata_in_the_properties_of_a_model_are_read_back(tmp_path):
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.helper.set_model_props(model, metadata.texts(DOCUMENT))
    onnx.save(model, tmp_path / "a.onnx")
    assert metadata.read(tmp_path / "a.onnx") == DOCUMENT


@pytest.mark.parametrize("place", ["a.tflite", "absent.tflite", "a.onnx", "absent.onnx", ""])
def test_a_file_that_make_export_has_not_written_is_named(tmp_path, place):
    for name in ("a.tflite", "a.onnx"):
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(UsageError, match=metadata.FILE):
        metadata.read(tmp_path / place)


def test_without_the_packages_of_onnx_what_installs_them_is_named(tmp_path, monkeypatch):
    assert formats.refusal("onnx", "classification") is None
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    assert "make -B setup" in formats.refusal("onnx", "classification")
    with pytest.raises(UsageError, match="make -B setup"):
        metadata.read(tmp_path / "a.onnx")
