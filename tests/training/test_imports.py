"""A package that stands for itself until something of it is asked for."""

import importlib
import importlib.util
import sys

import pytest

from pipelines.training import imports


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes `seldom` importable, with a module `part`; importing it is only allowed after `postponed` has begun."""
    folder = tmp_path / "seldom"
    folder.mkdir()
    (folder / "__init__.py").write_text("VALUE = 3\n")
    (folder / "part.py").write_text("OTHER = 4\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(imports, "LATE", ("seldom",))
    yield
    for name in ("seldom", "seldom.part"):
        sys.modules.pop(name, None)


def is_stand_in() -> bool:
    return isinstance(sys.modules["seldom"], imports.Late)


def test_a_package_is_imported_when_something_of_it_is_asked_for(package):
    with imports.postponed():
        seldom = importlib.import_module("seldom")
        assert is_stand_in()
        assert seldom.VALUE == 3
        assert not is_stand_in()
        assert seldom.VALUE == 3
        with pytest.raises(AttributeError):
            _ = seldom.MISSING


def test_its_modules_can_be_imported(package):
    with imports.postponed():
        assert importlib.import_module("seldom.part").OTHER == 4


def test_whoever_walks_through_all_modules_imports_nothing(package):
    with imports.postponed():
        named = [module for module in sys.modules.values() if hasattr(module, "__file__")]
        assert named and is_stand_in()


def test_afterwards_nothing_stands_for_it(package):
    with imports.postponed():
        pass
    assert importlib.import_module("seldom").VALUE == 3 and not is_stand_in()


def test_what_is_there_already_stays(package):
    before = importlib.import_module("seldom")
    with imports.postponed():
        assert importlib.import_module("seldom") is before
    assert sys.modules["seldom"] is before


@pytest.mark.parametrize("name", ["missing", "missing.part"])
def test_what_is_not_installed_stays_so(monkeypatch, name):
    monkeypatch.setattr(imports, "LATE", (name,))
    with imports.postponed(), pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)


def test_others_see_that_it_is_installed(package):
    with imports.postponed():
        assert importlib.util.find_spec("seldom") and is_stand_in()
