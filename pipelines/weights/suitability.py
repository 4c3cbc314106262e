"""How data suit a network: whether objects shrink to nothing at its input, and whether a class is rare."""

from collections.abc import Mapping

SMALL = 8  # pixels at the network's input, under which objects are hard to find
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
    longest: dict[int, int] = {}
    for size, count in image_sizes.items():
        width, _, height = size.partition("x")
        side = max(int(width), int(height))
        longest[side] = longest.get(side, 0) + count
    image = _median(longest)
    sizes = {int(size): count for size, count in box_sizes.items()}
    half = _median(sizes)
    if not image or not half or half * edge / image >= SMALL:
        return None
    enough = SMALL * image // half
    return (
        f"half of the objects are at most {half} of {image} pixels, {half * edge / image:.0f} at an input of {edge}; "
        f"from {enough} up they are {SMALL}: task.model.input_size=[{enough},{enough},3], in multiples that fit"
    )


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
