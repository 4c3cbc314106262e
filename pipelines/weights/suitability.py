"""How data suit a network: whether objects shrink to nothing at its input or fit none of its anchors, and whether a class is rare."""

from collections.abc import Mapping
from typing import Any

SMALL = 8  # pixels at the network's input, under which objects are hard to find
FITS = 2**0.5  # An anchor takes a box of its own shape whose sides are up to so many times its own.
ODD = 0.1  # of the objects that fit no anchor, from where on it is said
NUM_SCALES = (
    3  # of an anchor at each level, where an experiment does not say; as Model Garden has it
)
LESS = 3  # times as large were the pictures that weights learned from, from where on it is said
RARE = (
    10  # times as often as the rarest class comes the most frequent one, from where on it is said
)


def small_objects(
    image_sizes: Mapping[str, int], box_sizes: Mapping[str, int], edge: int
) -> str | None:
    """Says so where half of the objects are small at the network's input.

    Args:
        image_sizes: images by `<width>x<height>`.
        box_sizes: objects by size in pixels.
        edge: of the network's input, in pixels.
    """
    image = _longest_side(image_sizes)
    sizes = {int(size): count for size, count in box_sizes.items()}
    half = _median(sizes)
    if not image or not half or half * edge / image >= SMALL:
        return None
    enough = SMALL * image // half
    return (
        f"half of the objects are at most {half} of {image} pixels, {half * edge / image:.0f} at an input of {edge}; "
        f"from {enough} up they are {SMALL}: task.model.input_size=[{enough},{enough},3], in multiples that fit"
    )


def small_input(edge: int, learned: int) -> str | None:
    """Says so where pictures go in far smaller than those that weights learned from; 0: that is not known."""
    if not edge or LESS * edge >= learned:
        return None
    return (
        f"pictures go in at {edge} pixels, the weights learned at {learned}: the shapes that they know "
        "are larger; a larger task.model.input_size fits them better"
    )


def odd_objects(
    image_sizes: Mapping[str, int], box_sizes: Mapping[str, int], model: Mapping[str, Any]
) -> str | None:
    """Says so where a part of the objects fit no anchor of a detector, as far as its experiment states them.

    Args:
        model: its `task.model`.
    """
    anchor = model.get("anchor") or {}
    size = anchor.get("anchor_size")
    low = model.get("min_level")
    high = model.get("max_level")
    image = _longest_side(image_sizes)
    if not (image and size and low and high):
        return None
    scale = model["input_size"][0] / image
    steps = anchor.get("num_scales", NUM_SCALES)
    largest_scale = 2 ** (high + 1 - 1 / steps)
    smallest = size * 2**low / FITS
    largest = size * largest_scale * FITS
    small = 0
    large = 0
    for box, count in box_sizes.items():
        side = int(box) * scale
        if side < smallest:
            small += count
        elif side > largest:
            large += count
    least = ODD * sum(box_sizes.values())
    if small > least:
        return (
            f"{small} objects are under {smallest:.0f} pixels at the input, too small for any anchor: a larger "
            "task.model.input_size, or a smaller task.model.anchor.anchor_size"
        )
    if large <= least:
        return None
    higher = high + 1
    multiple = 2**higher
    return (
        f"{large} objects are over {largest:.0f} pixels at the input, too large for any anchor: "
        f"task.model.max_level={higher}, with an input of multiples of {multiple}"
    )


def _longest_side(image_sizes: Mapping[str, int]) -> int:
    """The median of the pictures' longer sides."""
    longest: dict[int, int] = {}
    for size, count in image_sizes.items():
        width, _, height = size.partition("x")
        side = max(int(width), int(height))
        longest[side] = longest.get(side, 0) + count
    return _median(longest)


def rare_class(counts: Mapping[str, int], task: str) -> str | None:
    """Says which class is rare, and what Model Garden can do about it.

    Args:
        counts: images, objects or pixels to train on, by class.
    """
    there = {name: count for name, count in counts.items() if count}
    if len(there) < 2:
        return None
    rarest = min(there, key=there.__getitem__)
    most = max(there, key=there.__getitem__)
    times = there[most] / there[rarest]
    if times < RARE:
        return None
    remedies = {
        "segmentation": f"task.losses.class_weights={_weights(counts)} makes up for some of it",
        "detection": "a focal loss sees to some of it, Mask R-CNN takes task.losses.class_weights; others: more pictures of it",
        "classification": f"Model Garden has no weights of classes here: repeat its pictures, dataset.repeat={{{rarest}:{_often(times)}}}",
    }
    return f"{most} comes {times:.0f} times as often as {rarest}; {remedies.get(task, 'bring more of it')}"


def _often(times: float) -> int:
    """How often to repeat a picture, by the root of how rare its class is: again and again it would be learned by heart."""
    return round(times**0.5)


def _weights(counts: Mapping[str, int]) -> str:
    """A weight for each class, by the root of how rare it is: the inverse itself lets noise of the rarest rule."""
    most = max(counts.values())
    weights = [round((most / max(1, count)) ** 0.5, 1) for count in counts.values()]
    return str(weights).replace(" ", "")


def _median(counts: Mapping[int, int]) -> int:
    middle = sum(counts.values()) / 2
    passed = 0
    for value in sorted(counts):
        passed += counts[value]
        if passed >= middle:
            return value
    return 0
