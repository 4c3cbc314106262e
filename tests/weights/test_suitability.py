"""Objects that shrink to nothing at a network's input are said, and rare classes."""

from pipelines.weights.suitability import odd_objects, rare_class, small_input, small_objects

IMAGES = {"640x480": 9, "320x240": 1}


def test_small_objects_are_said_with_an_input_that_is_enough():
    said = small_objects(IMAGES, {"16": 10, "100": 3}, 256)
    assert said and "6 at an input of 256" in said and "[320,320,3]" in said


def test_objects_that_are_large_enough_are_no_warning():
    assert small_objects(IMAGES, {"16": 3, "100": 10}, 256) is None
    assert small_objects(IMAGES, {}, 256) is None


def test_an_input_far_smaller_than_what_weights_learned_from_is_said():
    assert "go in at 32 pixels, the weights learned at 224" in str(small_input(32, 224))
    assert small_input(96, 224) is small_input(0, 224) is small_input(32, 0) is None


MODEL = {
    "input_size": [256, 256, 3],
    "min_level": 3,
    "max_level": 5,
    "anchor": {"anchor_size": 3},
}


def test_objects_that_fit_no_anchor_are_said_with_the_setting_that_helps():
    # Pictures of 640 pixels at 256: anchors from 24 to 152 pixels take sides from 17 to 216.
    assert odd_objects(IMAGES, {"43": 10, "530": 10}, MODEL) is None
    small = str(odd_objects(IMAGES, {"40": 2, "100": 10}, MODEL))
    assert small.startswith("2 objects are under 17 pixels") and "input_size" in small
    large = str(odd_objects(IMAGES, {"560": 2, "100": 10}, MODEL))
    assert large.startswith("2 objects are over 216 pixels") and "max_level=6" in large
    assert odd_objects(IMAGES, {"560": 1, "100": 10}, MODEL) is None
    assert odd_objects(IMAGES, {"560": 10}, {"input_size": [256, 256, 3]}) is None


def test_a_rare_class_is_said_with_what_can_be_done():
    counts = {"road": 10_000, "sign": 100, "never": 0}
    said = rare_class(counts, "segmentation")
    assert said and "road comes 100 times as often as sign" in said
    assert "class_weights=[1.0,10.0,100.0]" in said
    assert "repeat its pictures, dataset.repeat={sign:10}" in str(
        rare_class(counts, "classification")
    )
    assert rare_class({"a": 9, "b": 1}, "detection") is None
