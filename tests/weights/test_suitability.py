"""Objects that shrink to nothing at a network's input are said."""

from pipelines.weights.suitability import small_objects

IMAGES = {"640x480": 9, "320x240": 1}


def test_small_objects_are_said_with_an_input_that_is_enough():
    said = small_objects(IMAGES, {"16": 10, "100": 3}, 256)
    assert said and "6 at an input of 256" in said and "[320,320,3]" in said


def test_objects_that_are_large_enough_are_no_warning():
    assert small_objects(IMAGES, {"16": 3, "100": 10}, 256) is None
    assert small_objects(IMAGES, {}, 256) is None
