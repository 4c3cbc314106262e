"""What an evaluation found in every image: enough to have its figure over any choice of the images.

A training keeps them in `outcomes/last.npz` and `outcomes/best.npz` of its run directory, an evaluation in
`evaluation/outcomes.npz`. `read(file)["AP"].figure(images)` is the figure over these images, some of them more than once.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = "outcomes"
LAST, BEST = "last.npz", "best.npz"
FILE = "outcomes.npz"  # in the folder of an evaluation
RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's, at which precision is averaged
THRESHOLDS = 10  # of COCO's IoU, from 0.5 to 0.95


@dataclass(frozen=True)
class Classes:
    """Answers of a classifier.

    Attributes:
        truth: class of every image.
        answer: the surest one.
        score: its probability.
    """

    truth: np.ndarray
    answer: np.ndarray
    score: np.ndarray

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self.truth)

    @property
    def identity(self) -> bytes:
        """Equal for the same images alone, as far as their labels tell them apart."""
        return self.truth.tobytes()

    def figure(self, images: np.ndarray | None = None) -> float:
        """Accuracy over the images with these numbers, or over all."""
        right = self.truth == self.answer
        return float(np.mean(right if images is None else right[images]))


@dataclass(frozen=True)
class Pixels:
    """How the classes of pixels were taken for each other; each array has one entry for a pair that occurs in an image.

    Attributes:
        size: numbers of images and classes.
        image: its number.
        truth: class of the label.
        answer: class of the answer.
        count: how many pixels.
    """

    size: np.ndarray
    image: np.ndarray
    truth: np.ndarray
    answer: np.ndarray
    count: np.ndarray

    @property
    def images(self) -> int:
        """How many there are."""
        return int(self.size[0])

    @property
    def identity(self) -> bytes:
        """Equal for the same images alone, as far as their labels tell them apart."""
        images, classes = self.size.tolist()
        places = self.image.astype(np.int64) * classes + self.truth
        return np.bincount(places, self.count, images * classes).tobytes()

    def figure(self, images: np.ndarray | None = None) -> float:
        """Mean IoU over the images with these numbers, or over all; as official, a class that nowhere occurs has 0."""
        classes = int(self.size[1])
        counts = self.count * _times(images, self.images)[self.image]
        places = self.truth.astype(np.int64) * classes + self.answer
        table = np.bincount(places, counts, classes**2).reshape(classes, classes)
        hits = np.diag(table)
        union = table.sum(axis=0) + table.sum(axis=1) - hits
        return float(np.mean(hits / np.maximum(union, 1)))


@dataclass(frozen=True)
class Objects:
    """How the boxes or masks of a detector match, as COCO's evaluator matched them.

    Attributes:
        ids: COCO's id of every image.
        wanted: rows of a class, an image's number and how many objects of the class it has that count.
        image: number of the image of every detection.
        category: its class.
        score: how sure it is.
        matched: at which thresholds of IoU it has an object: a bit each, the lowest is 0.5.
        ignored: at which it counts neither way.
    """

    ids: np.ndarray
    wanted: np.ndarray
    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self.ids)

    @property
    def identity(self) -> bytes:
        """Equal for the same images alone, as far as their ids tell them apart."""
        return self.ids.tobytes()

    def figure(self, images: np.ndarray | None = None) -> float:
        """COCO's AP over the images with these numbers, or over all; -1 where there is no object in them."""
        times = _times(images, self.images)
        category, image, count = self.wanted.T
        precisions = []
        for number in np.unique(category):
            is_of = category == number
            objects = int(np.sum(count[is_of] * times[image[is_of]]))
            if objects:
                precisions.append(self._precision(number, objects, times))
        return float(np.mean(precisions)) if precisions else -1.0

    def _precision(self, number: int, objects: int, times: np.ndarray) -> float:
        """Of one class, averaged over thresholds and recalls."""
        chosen = np.flatnonzero(self.category == number)
        chosen = chosen[np.argsort(-self.score[chosen], kind="stable")]
        chosen = np.repeat(chosen, times[self.image[chosen]])
        values = []
        for threshold in range(THRESHOLDS):
            is_hit = self.matched[chosen] >> threshold & 1
            counts = 1 - (self.ignored[chosen] >> threshold & 1)
            hits = np.cumsum(is_hit * counts)
            precision = hits / np.maximum(np.cumsum(counts), 1)
            # The best precision of this recall or a higher one.
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            places = np.searchsorted(hits / objects, RECALLS, side="left")
            values.append(np.append(envelope, 0.0)[places])
        return float(np.mean(values))


Outcomes = Classes | Pixels | Objects
KINDS = {kind.__name__: kind for kind in (Classes, Pixels, Objects)}


def _times(images: np.ndarray | None, count: int) -> np.ndarray:
    """How often each image was drawn."""
    return np.ones(count, int) if images is None else np.bincount(images, minlength=count)


def packed(step: int, found: Mapping[str, Outcomes]) -> bytes:
    """The content of a file.

    Args:
        step: that was evaluated.
        found: by the name of the official figure that they give.
    """
    arrays: dict[str, Any] = {"step": np.array(step)}
    for name, outcomes in found.items():
        for field, values in asdict(outcomes).items():
            arrays[f"{name}/{type(outcomes).__name__}/{field}"] = values
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def read(file: Path) -> dict[str, Outcomes]:
    """What was found in every image, by the name of the official figure; nothing where there is no such file."""
    fields: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    try:
        with np.load(file, allow_pickle=False) as arrays:
            for key in arrays.files:
                if key != "step":
                    name, kind, field = key.split("/")
                    fields.setdefault((name, kind), {})[field] = arrays[key]
    except (OSError, ValueError, zipfile.BadZipFile):
        return {}
    return {name: KINDS[kind](**values) for (name, kind), values in fields.items()}
