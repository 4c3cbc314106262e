"""What a SavedModel of ours found in a picture, in plain values that JSON holds."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.shipping import findings, results

UPRIGHT = np.array(
    [[0, 0], [0, 0], [1, 1], [0, 0]], np.float32
)  # boxes in the picture's own pixels


def plain(
    found: Mapping[str, np.ndarray],
    size: tuple[int, int],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The answer to a request.

    Args:
        found: what the signature `serving_default` returned of the picture.
        size: height and width of the picture.
        about: the model's metadata.
    """
    labels = about["labels"]
    if "probabilities" in found:
        by_label = zip(labels, found["probabilities"].tolist(), strict=True)
        best = int(found["probabilities"].argmax())
        return {
            "class": labels[best],
            "probabilities": dict(by_label),
        }
    if "classes" in found:
        return {
            "size": list(size),
            "masks": _of_classes(found["classes"], labels),
        }
    result = results.of_objects(found, UPRIGHT, size).above(about["min_score"])
    objects = []
    for number, box in enumerate(result.boxes.tolist()):
        entry = {
            "class": labels[int(result.classes[number])],
            "score": float(result.scores[number]),
            "box": box,
        }
        if result.masks is not None:
            entry["mask"] = findings.run_lengths(result.masks[number])
        objects.append(entry)
    return {"size": list(size), "objects": objects}


def _of_classes(pixels: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """The pixels of each class that occurs, in COCO's run lengths."""
    masks = {}
    for number in np.unique(pixels):
        masks[labels[int(number)]] = findings.run_lengths((pixels == number).astype(np.uint8))
    return masks
