"""What an evaluation found in every image: enough to have its figure over any choice of the images.

A training keeps them in `outcomes/last.npz` and `outcomes/best.npz` of its run directory, an evaluation in
`evaluation/outcomes.npz`. `read(file)["AP"].figure(images)` is the figure over these images, some of them more than once.
"""

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import statistics
from pipelines.statistics import ERROR, Interval

FOLDER = "outcomes"
LAST, BEST = "last.npz", "best.npz"
FILE = "outcomes.npz"  # in the folder of an evaluation
RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's, at which precision is averaged
SAME_FIGURE = 1e-4  # within which the official figure, in single precision, is the same
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

    @property
    def right(self) -> np.ndarray:
        """Whether the answer is the truth, of every image."""
        return self.truth == self.answer

    def figure(self, images: np.ndarray | None = None) -> float:
        """Accuracy over the images with these numbers, or over all."""
        return float(np.mean(self.right if images is None else self.right[images]))


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


@dataclass(frozen=True)
class Paired:
    """Two models on the same images.

    Attributes:
        difference: of their figures, the second's less the first's.
        interval: where it lies for all such images.
        apart: whether the choice of the images alone would hardly give such a difference.
        shown: how many images there are.
        images: about how many would tell, if the difference stays; None: they are equal.
    """

    difference: float
    interval: Interval
    apart: bool
    shown: int
    images: int | None


def over_images(found: Outcomes, level: float = 1 - ERROR) -> Interval:
    """Where the figure lies for all images like these, by drawing them again and again."""
    return statistics.bootstrap(
        np.arange(found.images),
        found.figure,
        level=level,
        draws=_draws(found),
    )


def paired(first: Outcomes, second: Outcomes, comparisons: int = 1) -> Paired | None:
    """Weighs two models image by image; None: it is not known that they were shown the same images.

    Args:
        comparisons: how many such differences are looked at together; each is then allowed its part of 5%.
    """
    if type(first) is not type(second) or first.identity != second.identity:
        return None
    error = ERROR / comparisons
    difference = second.figure() - first.figure()

    def change(images: np.ndarray) -> float:
        return second.figure(images) - first.figure(images)

    interval = statistics.bootstrap(
        np.arange(first.images),
        change,
        level=1 - error,
        draws=_draws(first),
    )
    apart = interval.low > 0 or interval.high < 0
    if isinstance(first, Classes) and isinstance(second, Classes):
        # Exact, where a bootstrap of few images that differ is too sure.
        lost = int(np.sum(first.right & ~second.right))
        gained = int(np.sum(second.right & ~first.right))
        apart = statistics.sign_test(lost, gained) < error
    return Paired(
        difference,
        interval,
        apart,
        first.images,
        _images_that_tell(first.images, difference, interval),
    )


def _draws(found: Outcomes) -> int:
    """As many as an interval needs; a figure of boxes or pixels takes long to work out."""
    return 2000 if isinstance(found, Classes) else 400


def _images_that_tell(images: int, difference: float, interval: Interval) -> int | None:
    if difference == 0:
        return None
    half = (interval.high - interval.low) / 2
    return math.ceil(images * (half / difference) ** 2)


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


def pair_of_runs(runs: Sequence[tuple[Path | None, Mapping[str, Any]]]) -> Paired | None:
    """Two runs image by image; None where that is not kept of both, or they were shown other images.

    Args:
        runs: directory and headline of each.
    """
    first, second = [
        of_run(run_dir, headline.get("metric"), headline.get("value")) for run_dir, headline in runs
    ]
    return paired(first, second) if first and second else None


def of_run(run_dir: Path | None, metric: str | None, value: float | None) -> Outcomes | None:
    """What the last evaluation of a run found in every image; None where it is not kept, or gives another figure.

    Args:
        value: the figure that is known of it.
    """
    if run_dir is None or metric is None or value is None:
        return None
    found = read(run_dir / FOLDER / LAST).get(metric)
    if found is None or abs(found.figure() - value) > SAME_FIGURE:
        return None
    return found
