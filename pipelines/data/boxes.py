"""Boxes of objects: checked, cut at the edge of their image, and as fractions of it."""

import math
from typing import Any, NamedTuple

from pipelines.data.example import Rejected

SMALLEST = 1e-6  # share of a side that float32 still tells from nothing


class Box(NamedTuple):
    """A box in pixels."""

    top: float
    left: float
    bottom: float
    right: float

    def area(self) -> float:
        """Its area in pixels."""
        return (self.bottom - self.top) * (self.right - self.left)

    def fractions(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The box as fractions of an image's sides, the way records hold it."""
        return (
            self.top / height,
            self.left / width,
            self.bottom / height,
            self.right / width,
        )


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def clipped(box: Any, height: int, width: int) -> tuple[Box, bool]:
    """What of a box [x, y, width, height] lies inside an image, and whether it had to be cut.

    Raises:
        Rejected: it is no box, has no area, or lies outside.
    """
    stated = _stated(box)
    top = max(0.0, stated.top)
    left = max(0.0, stated.left)
    bottom = min(float(height), stated.bottom)
    right = min(float(width), stated.right)
    if top >= bottom or left >= right:
        advice = f"box {box} lies outside the image of {width}x{height}"
        raise Rejected("box_outside", f"{advice}; correct it, or remove the object")
    # As float32 and as a fraction, the way it is stored, the box must still have an area.
    tall = (bottom - top) / height
    wide = (right - left) / width
    if tall < SMALLEST or wide < SMALLEST:
        advice = f"box {box} has no area inside the image"
        raise Rejected("box_empty", f"{advice}; correct it, or remove the object")
    inner = Box(top, left, bottom, right)
    return inner, inner != stated


def _stated(box: Any) -> Box:
    """A box as an annotation states it."""
    is_list = isinstance(box, list) and len(box) == 4
    if not is_list or not all(map(is_number, box)):
        advice = f"box {box!r} is not [x, y, width, height] in pixels"
        raise Rejected("box_malformed", f"{advice}; correct it, or remove the object")
    left, top, width, height = (float(value) for value in box)
    if width <= 0 or height <= 0:
        advice = f"box {box} has no area"
        raise Rejected("box_empty", f"{advice}; correct it, or remove the object")
    return Box(
        top,
        left,
        top + height,
        left + width,
    )
