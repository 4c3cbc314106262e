"""How data suit a network's input: whether its objects shrink to nothing there."""

from collections.abc import Mapping

SMALL = 8  # pixels at the network's input, under which objects are hard to find


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


def _median(counts: Mapping[int, int]) -> int:
    middle = sum(counts.values()) / 2
    passed = 0
    for value in sorted(counts):
        passed += counts[value]
        if passed >= middle:
            return value
    return 0
