"""The table of the package elpv-dataset, on pictures of our own: its data are not for us to pass on."""

import hashlib
import sys
import zipfile

import cv2
import numpy as np
import pytest

from pipelines import assembly
from pipelines.config import compose
from pipelines.data.sources import elpv
from pipelines.usage import UsageError

PROBABILITIES = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")


def root(folder):
    (folder / "images").mkdir()
    lines = []
    for number in range(24):
        name = f"cell{number:04d}.png"
        picture = np.full((8, 8), number * 10, np.uint8)
        cv2.imwrite(str(folder / "images" / name), picture)
        lines.append(f"images/{name}  {PROBABILITIES[number % 4]}                 mono")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def built(folder, data_dir):
    words = ["dataset=elpv", f"dataset.root={folder}", f"data_dir={data_dir}", "dataset.validate=none"]  # fmt: skip
    return assembly.with_data(compose(words)).data


def test_a_cell_is_defective_above_one_half(tmp_path):
    data = built(root(tmp_path), tmp_path / "data")
    assert data.labels == ("functional", "defective")
    assert sum(split.examples for split in data.splits.values()) == 24
    defective = sum(counts["defective"] for counts in data.classes.values())
    assert defective == 12


PIP = """#!{python}
import pathlib, shutil, sys
if "download" in sys.argv and pathlib.Path("{wheel}").exists():
    shutil.copy("{wheel}", sys.argv[sys.argv.index("--dest") + 1])
"""


def test_the_package_is_fetched_where_it_is_not_here_and_held_against_its_digest(
    tmp_path, monkeypatch
):
    wheel = tmp_path / "elpv_dataset-1.0.0.post1-py3-none-any.whl"
    pip = tmp_path / "python"
    pip.write_text(PIP.format(python=sys.executable, wheel=wheel))
    pip.chmod(0o755)
    monkeypatch.setattr(elpv.sys, "executable", str(pip))
    place = tmp_path / "data" / "elpv_dataset" / "data"
    with pytest.raises(UsageError, match="cannot be fetched here; unpack its wheel"):
        built(place, tmp_path / "records")
    inside = tmp_path / "elpv_dataset" / "data"
    inside.mkdir(parents=True)
    root(inside)
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in inside.rglob("*"):
            archive.write(file, file.relative_to(tmp_path))
    with pytest.raises(UsageError, match="nothing was kept"):
        built(place, tmp_path / "records")
    assert not place.exists()
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(elpv, "SHA256", sha256)
    assert built(place, tmp_path / "records").splits["train"].examples > 0
    wheel.unlink()
    assert built(place, tmp_path / "again").splits["train"].examples > 0


def test_another_table_is_named_with_its_line(tmp_path):
    folder = root(tmp_path)
    table = folder / "labels.csv"
    table.write_text(table.read_text() + "cell9.png,1.0\n")
    with pytest.raises(UsageError, match="line 25 is not a path, a probability"):
        built(folder, tmp_path / "data")
