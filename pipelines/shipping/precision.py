"""COCO's average precision over a choice of images, matched once by COCO's own code."""

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


class Matched:
    """Boxes matched with the truth of every image, to be summed up over any of them."""

    def __init__(
        self,
        truths: Sequence[Mapping[str, Any]],
        found: Sequence[Any],
    ) -> None:
        """Matches.

        Args:
            truths: of each image, `boxes` (top, left, bottom, right), `classes` and `is_crowd`.
            found: of each image, boxes, scores and classes.
        """
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = _dataset(truths)
            truth.createIndex()
            results = _results(found)
            self._evaluation = COCOeval(
                truth,
                truth.loadRes(results) if results else COCO(),
                "bbox",
            )
            self._evaluation.params.areaRng = self._evaluation.params.areaRng[:1]
            self._evaluation.params.areaRngLbl = ["all"]
            self._evaluation.params.maxDets = [100]
            self._is_empty = not results
            if results:
                self._evaluation.evaluate()
        self._images = len(truths)

    def precision(self, drawn: np.ndarray) -> float:
        """AP over these images, some of them more than once."""
        if self._is_empty:
            return 0.0
        evaluation = copy.copy(self._evaluation)
        per_class = np.array(self._evaluation.evalImgs, object).reshape(-1, self._images)
        evaluation.evalImgs = per_class[:, drawn].ravel().tolist()
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
        precision = evaluation.eval["precision"]
        known = precision[precision > -1]
        return float(known.mean()) if known.size else 0.0


def _dataset(
    truths: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for number, truth in enumerate(truths, start=1):
        for index, (top, left, bottom, right) in enumerate(truth["boxes"].tolist()):
            height, width = bottom - top, right - left
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(truth["classes"][index]),
                    "bbox": [left, top, width, height],
                    "area": height * width,
                    "iscrowd": int(truth["is_crowd"][index]),
                }
            )
    categories = sorted({entry["category_id"] for entry in annotations})
    return {
        "info": {},
        "images": [{"id": number + 1} for number in range(len(truths))],
        "annotations": annotations,
        "categories": [{"id": category} for category in categories],
    }


def _results(found: Sequence[Any]) -> list[dict[str, Any]]:
    results = []
    for number, (boxes, scores, classes) in enumerate(found, start=1):
        for index, (top, left, bottom, right) in enumerate(boxes.tolist()):
            results.append(
                {
                    "image_id": number,
                    "category_id": int(classes[index]),
                    "bbox": [
                        left,
                        top,
                        right - left,
                        bottom - top,
                    ],
                    "score": float(scores[index]),
                }
            )
    return results
