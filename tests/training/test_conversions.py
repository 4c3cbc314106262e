"""What AutoGraph has converted is found again in the next process, and only where it would be converted to the same."""

import importlib.util
import json
import traceback
from pathlib import Path
from types import ModuleType

import pytest
import tensorflow as tf
from tensorflow.python.autograph.impl import api
from tensorflow.python.autograph.pyct import cache

from pipelines.training import conversions

STEPS = """
SCALE = 3.0


def steps(value):
    total = 0.0
    for turn in tf.range(3):
        if value > 0:
            total += SCALE * value
        else:
            total -= value
    return total
"""
FAULT = """
def steps(value):
    if value > 0:
        value = value + "one"
    return value
"""


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder of their own for conversions, in a process that keeps them."""
    folder = tmp_path / "kept"
    monkeypatch.setattr(conversions, "FOLDER", folder)
    conversions._digest.cache_clear()
    conversions.keep()
    return folder


def written(folder: Path, text: str) -> ModuleType:
    """A module of Python, imported anew by a process that has converted nothing of it yet."""
    api._TRANSPILER._cache = cache.CodeObjectCache()
    file = folder / "written.py"
    file.write_text(f"import tensorflow as tf\n{text}")
    conversions._digest.cache_clear()
    spec = importlib.util.spec_from_file_location("written", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(module: ModuleType, value: float) -> float:
    return tf.function(module.steps)(tf.constant(value)).numpy()


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*") if file.is_file()}


def test_a_function_is_converted_once(kept, tmp_path):
    first = written(tmp_path, STEPS)
    assert run(first, 2.0) == 18.0 and run(first, -2.0) == 6.0
    stored = files(kept)
    assert sorted(name.rsplit(".")[1] for name in stored) == ["json", "py"]
    again = written(tmp_path, STEPS)
    assert run(again, 2.0) == 18.0 and run(again, -2.0) == 6.0
    assert files(kept) == stored
    (source,) = kept.glob("*.py")
    # Marked, so that it is this file which runs.
    marked = source.read_text().replace("SCALE", "2 * SCALE")
    described = json.loads(source.with_suffix(".json").read_text())
    described["sha256"] = conversions._sha256(marked.encode())
    source.write_text(marked)
    source.with_suffix(".json").write_text(json.dumps(described))
    assert run(written(tmp_path, STEPS), 2.0) == 36.0


def test_another_text_is_converted_anew(kept, tmp_path):
    assert run(written(tmp_path, STEPS), 2.0) == 18.0
    assert run(written(tmp_path, STEPS.replace("total -=", "total +=")), -2.0) == -6.0
    assert len(list(kept.glob("*.py"))) == 2


def test_a_name_that_is_taken_now_is_not_one_of_the_conversion(kept, tmp_path):
    assert run(written(tmp_path, STEPS), 2.0) == 18.0
    module = written(tmp_path, STEPS)
    module.loop_body = module.get_state = 1  # AutoGraph's own names, where they are free.
    assert run(module, 2.0) == 18.0
    assert len(list(kept.glob("*.py"))) == 2


@pytest.mark.parametrize("suffix", [".py", ".json"])
def test_a_file_that_was_cut_off_is_converted_anew(kept, tmp_path, suffix):
    run(written(tmp_path, STEPS), 2.0)
    stored = files(kept)
    (cut,) = kept.glob(f"*{suffix}")
    cut.write_bytes(cut.read_bytes()[:20])
    assert run(written(tmp_path, STEPS), 2.0) == 18.0
    assert files(kept) == stored


def test_a_file_of_another_form_is_converted_anew(kept, tmp_path):
    run(written(tmp_path, STEPS), 2.0)
    stored = files(kept)
    (described,) = kept.glob("*.json")
    described.write_text("[]")
    assert run(written(tmp_path, STEPS), 2.0) == 18.0
    assert files(kept) == stored


def test_an_environment_that_cannot_be_written_to_converts_each_time(kept, tmp_path):
    kept.write_text("a file where the folder would be")
    assert run(written(tmp_path, STEPS), 2.0) == 18.0
    assert run(written(tmp_path, STEPS), 2.0) == 18.0


def test_an_error_names_the_line_that_was_written(kept, tmp_path):
    told = []
    for _ in range(2):
        with pytest.raises(Exception, match="one") as error:
            run(written(tmp_path, FAULT), 2.0)
        told.append("".join(traceback.format_exception_only(error.value)))
    assert 'written.py", line 5' in told[0]
    assert told[0] == told[1]
