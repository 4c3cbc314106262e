"""Pictures without annotations: which files are taken, how each is read, what is said of one that is none."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines.data import pictures
from pipelines.data.example import Rejected
from pipelines.usage import UsageError


@pytest.fixture
def folder(tmp_path):
    pixels = np.full((8, 6, 3), 90, np.uint8)
    (tmp_path / "inner").mkdir()
    cv2.imwrite(str(tmp_path / "b.jpg"), pixels)
    cv2.imwrite(str(tmp_path / "inner" / "a.png"), pixels)
    Image.fromarray(pixels).save(tmp_path / "c.gif")
    (tmp_path / "README.txt").write_text("no picture by its name")
    (tmp_path / "d.jpg").write_text("no picture by its bytes")
    os.symlink(tmp_path / "nowhere.jpg", tmp_path / "e.jpg")
    return tmp_path


def test_a_folder_gives_its_pictures_sorted_and_what_cannot_be_read_by_its_name(folder):
    found = pictures.found(str(folder))
    assert [file.name for file in found] == ["b.jpg", "c.gif", "d.jpg", "e.jpg", "inner/a.png"]
    for file in found[2:4]:
        with pytest.raises(Rejected):
            pictures.read(file, None)
    assert "link" in found[3].trouble


def test_a_file_and_a_pattern_are_places_too(folder):
    assert [file.path for file in pictures.found(str(folder / "b.jpg"))] == [str(folder / "b.jpg")]
    assert [file.name for file in pictures.found(str(folder / "*.jpg"))][:1] == ["b.jpg"]
    with pytest.raises(UsageError, match="there is no picture in it"):
        (folder / "empty").mkdir()
        pictures.found(str(folder / "empty"))
    with pytest.raises(UsageError, match="no such file"):
        pictures.found(str(folder / "absent"))


def test_a_picture_that_tensorflow_does_not_read_becomes_png_and_others_stay_as_they_are(folder):
    files = {file.name: file for file in pictures.found(str(folder))}
    image = pictures.read(files["c.gif"], None)
    assert (image.format, image.height, image.width) == ("png", 8, 6)
    assert pictures.read(files["b.jpg"], None).content == (folder / "b.jpg").read_bytes()
