"""Masks as pixels."""

import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as rle

from pipelines.data import masks
from pipelines.data.example import Rejected


@pytest.mark.parametrize("kind", ["noise", "box", "points"])
def test_columns_of_run_lengths_are_those_of_the_library(kind):
    random = np.random.RandomState(0)
    for _ in range(200):
        height, width = random.randint(1, 200, 2)
        pixels = np.zeros((height, width), np.uint8)
        if kind == "noise":
            pixels[:] = random.rand(height, width) < random.rand()
        elif kind == "box":
            top, left = random.randint(height), random.randint(width)
            pixels[top : top + random.randint(1, 90), left : left + random.randint(1, 90)] = 1
        else:
            pixels.flat[random.randint(0, height * width, 3)] = 1
        first = random.randint(width)
        end = random.randint(first, width) + 1
        counts = rle.encode(np.asfortranarray(pixels))["counts"]
        np.testing.assert_array_equal(
            masks._columns(counts, height, first, end), pixels[:, first:end]
        )


@pytest.mark.parametrize(
    ("counts", "advice"),
    [
        ("o" * 400_000, "more than 12 digits"),
        ("0P", "has no end"),
        ("PPPPPPPP8", "add up to the image's 768 pixels"),
        ("", "add up to the image's 768 pixels"),
    ],
)
def test_compressed_run_lengths_of_users_are_numbers_that_add_up(counts: str, advice: str) -> None:
    with pytest.raises(Rejected) as rejected:
        masks.encode_object({"size": [24, 32], "counts": counts}, 24, 32)
    assert rejected.value.code == "mask_malformed" and advice in rejected.value.advice


def test_beam_is_imported_without_tables_which_can_be_imported_later():
    code = """
import sys
from pipelines.data import without_tables
with without_tables():
    from pipelines.data import records
assert "apache_beam" in sys.modules and not {"pandas", "pyarrow"} & set(sys.modules)
import pandas, pyarrow
"""
    subprocess.run([sys.executable, "-c", code], check=True)
