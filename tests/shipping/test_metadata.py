"""What an exported file says of itself."""

import zipfile

import pytest

from pipelines.shipping import metadata
from pipelines.usage import UsageError


def test_metadata_behind_a_model_are_read_back_and_are_the_same_bytes_twice(tmp_path):
    document = {"labels": ["cat", "dog"], "run": "abc"}
    once, again = (metadata.append(b"model" * 100, document) for _ in range(2))
    assert once == again and once.startswith(b"model" * 100)
    file = tmp_path / "a.tflite"
    file.write_bytes(once)
    assert metadata.read(file) == document
    with zipfile.ZipFile(file) as files:
        assert files.read(metadata.LABELS) == b"cat\ndog\n"


def test_a_file_that_make_export_has_not_written_is_named(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"something else")
    for place in ("a.tflite", "absent.tflite", ""):
        with pytest.raises(UsageError, match=metadata.FILE):
            metadata.read(tmp_path / place)
