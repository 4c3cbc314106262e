"""The table of the package elpv-dataset, on pictures of our own: its data are not for us to pass on."""

import cv2
import numpy as np
import pytest

from pipelines import assembly
from pipelines.config import compose
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


def test_another_table_is_named_with_its_line(tmp_path):
    folder = root(tmp_path)
    table = folder / "labels.csv"
    table.write_text(table.read_text() + "cell9.png,1.0\n")
    with pytest.raises(UsageError, match="line 25 is not a path, a probability"):
        built(folder, tmp_path / "data")
