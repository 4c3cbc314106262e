"""Objects that shrink to nothing at a network's input are said, and rare classes."""

from pipelines.weights.suitability import rare_class, small_objects

IMAGES = {"640x480": 9, "320x240": 1}


def test_small_objects_are_said_with_an_input_that_is_enough():
    said = small_objects(IMAGES, {"16": 10, "100": 3}, 256)
    assert said and "6 at an input of 256" in said and "[320,320,3]" in said


def test_objects_that_are_large_enough_are_no_warning():
    assert small_objects(IMAGES, {"16": 3, "100": 10}, 256) is None
    assert small_objects(IMAGES, {}, 256) is None


def test_a_rare_class_is_said_with_what_can_be_done():
    counts = {"road": 10_000, "sign": 100, "never": 0}
    said = rare_class(counts, "segmentation")
    assert said and "road comes 100 times as often as sign" in said
    assert "class_weights=[1.0,10.0,100.0]" in said
    assert "repeat its pictures, dataset.repeat={sign:10}" in str(
        rare_class(counts, "classification")
    )
    assert rare_class({"a": 9, "b": 1}, "detection") is None
