"""Holds an exported file against its checkpoint on the run's validation records, and writes down what came of it."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.shipping import conversion, intervals, parity
from pipelines.shipping.parity import Forward, Watched
from pipelines.system import durable

# The official evaluation of whatever answers; it tells its second argument the labels of every batch.
Figures = Callable[[Forward, Callable[[Any], None]], Mapping[str, float]]


@dataclass
class Evaluated:
    """An evaluation: its figures, and what was answered of every image.

    Attributes:
        truths: the labels of every image, in the words of its task.
    """

    figures: Mapping[str, float]
    answers: list[Any]
    truths: list[Any] = field(default_factory=list)


def evaluated(kind: str, figures: Figures, forward: Forward) -> Evaluated:
    """Evaluates what answers, image by image."""
    watched = Watched(kind, forward)
    truths: list[Any] = []

    def seen(labels: Any) -> None:
        truths.extend(_truths(kind, labels))

    return Evaluated(figures(watched, seen), watched.answers, truths)


def kept(file: Path, make: Callable[[], Evaluated]) -> Evaluated:
    """What another process of this export has evaluated already, else what `make` does."""
    if file.exists():
        return pickle.loads(file.read_bytes())
    made = make()
    durable.write_whole(file, pickle.dumps(made))
    return made


def verdict_of_bytes(shared: float) -> str:
    """The status of a SavedModel that was asked about pictures' bytes."""
    least = 0.999
    if shared >= least:
        return "ok"
    return f"refused: asked about bytes, {shared:.3%} of the answers are the checkpoint's"


def _truths(kind: str, labels: Any) -> list[Any]:
    if kind == "classification":
        numbers = np.asarray(labels)
        return list(numbers.argmax(axis=-1) if numbers.ndim > 1 else numbers)
    if kind == "segmentation":
        return [mask[..., 0] for mask in np.asarray(labels["masks"])]
    truth = {name: np.asarray(value) for name, value in labels["groundtruths"].items()}
    images = []
    for number, scale in enumerate(np.asarray(labels["image_info"])[:, 2]):
        count = int(truth["num_detections"][number])
        images.append(
            {
                "boxes": truth["boxes"][number][:count],
                "classes": truth["classes"][number][:count],
                "is_crowd": truth["is_crowds"][number][:count],
                "scale": np.tile(scale, 2),
            }
        )
    return images


def row(
    form: str,
    kind: str,
    metric: str,
    *,
    reference: Evaluated,
    exported: Evaluated,
) -> dict[str, Any]:
    """What the ship card says of a format that was held against its checkpoint.

    Args:
        metric: the run's headline.
    """
    before = reference.figures[metric]
    after = exported.figures[metric]
    shared = parity.share(parity.agreement(kind, reference.answers, exported.answers))
    limits = parity.limits(form, kind)
    trouble = parity.verdict(limits, before, after, shared)
    return {
        "format": form,
        "status": f"refused: {trouble}" if trouble else "ok",
        "metric": metric,
        "figure": after,
        "checkpoint": before,
        "change": after - before,
        "interval": _interval(kind, metric, reference, exported),
        "agreement": shared,
        "images": len(exported.answers),
    }


def _interval(
    kind: str,
    metric: str,
    reference: Evaluated,
    exported: Evaluated,
) -> list[float] | None:
    """The interval of the change; None where the headline is none that is drawn again here."""
    before, after, truths = (
        reference.answers,
        exported.answers,
        reference.truths,
    )
    if metric == "accuracy":
        return intervals.of_classes(truths, before, after)
    if metric == "AP":
        return intervals.of_boxes(
            truths,
            _in_pixels(before, truths),
            _in_pixels(after, truths),
        )
    if metric == "mean_iou" and before and truths[0].shape == before[0].shape:
        classes = 1 + max(int(answer.max()) for answer in [*before, *after])
        return intervals.of_pixels(truths, before, after, classes)
    return None


def _in_pixels(answers: list[Any], truths: list[Any]) -> list[Any]:
    pairs = zip(answers, truths, strict=True)
    return [(boxes / truth["scale"], scores, labels) for (boxes, scores, labels), truth in pairs]


def described(exported: Path, folder: Path) -> dict[str, Any]:
    """Where an exported file lies, how large it is, and its digest."""
    return {
        "file": str(exported.relative_to(folder)),
        "bytes": conversion.size(exported),
        "sha256": conversion.sha256(exported),
    }
