"""Which settings of a sweep cannot be told from the best, and how many seeds would tell.

The yardstick is the spread over seeds, where any settings have several; else what was found in every image, where that is
kept; else, of a figure that is a share of images, the error that the choice of the images brings. Where none is known, nothing tells chance from effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import outcomes, statistics
from pipelines.outcomes import Outcomes
from pipelines.statistics import Gap, Spread
from pipelines.sweeps.ranking import Row


@dataclass(frozen=True)
class Ties:
    """What cannot be told from the best of a ranking.

    Attributes:
        positions: of those rows, from 0.
        yardstick: what differences are measured by.
        runs: about how many seeds of each would tell the best from all of them that have another figure; None: that is
            not known, or more than anybody trains.
    """

    positions: tuple[int, ...] = ()
    yardstick: str = ""
    runs: int | None = None

    def lines(self) -> list[str]:
        """What to say of them below the ranking, marked there by `=`."""
        if not self.positions:
            return []
        count = len(self.positions)
        named = "1 setting" if count == 1 else f"{count} settings"
        line = f"= cannot be told from the best: {named}, by {self.yardstick}"
        if self.runs is None:
            return [f"{line}; give several seeds: seed=1,2,3"]
        return [f"{line}; about {self.runs} seeds each would tell: {_seeds(self.runs)}"]


def find(
    rows: Sequence[Row],
    images: int | None = None,
    found: Sequence[Outcomes | None] = (),
) -> Ties:
    """The rows that cannot be told from the first.

    Args:
        rows: as `ranking.rank` orders them.
        images: of the validation split, where the figure is a share of them.
        found: in every image, by the best run of each row; None where it is not kept.
    """
    whole = [row for row in rows if not row.missing]
    if len(whole) < 2:
        return Ties()
    samples = [statistics.sample(row.values) for row in whole]
    spread = statistics.pooled(samples)
    if spread is None:
        by_images = _image_by_image(found[: len(whole)])
        if by_images:
            return by_images
    yardstick = _yardstick(spread, images)
    if spread is None and images is None:
        others = range(1, len(whole))
        return Ties(tuple(others), yardstick)
    tied: dict[int, Gap] = {}
    for position, other in enumerate(samples[1:], start=1):
        known = spread or statistics.of_images(
            samples[0].mean,
            other.mean,
            images or 1,
        )
        gap = statistics.gap(
            samples[0],
            other,
            known,
            comparisons=len(samples) - 1,
        )
        if not gap.apart:
            tied[position] = gap
    counts = [gap.runs for gap in tied.values() if gap.runs]
    return Ties(
        tuple(tied),
        yardstick,
        max(counts, default=None),
    )


def _image_by_image(found: Sequence[Outcomes | None]) -> Ties | None:
    """The rows that judge the images as the first does, chance aside; None: not known of every row, or of other images."""
    kept = [each for each in found if each is not None]
    if not kept or len(kept) < len(found):
        return None
    best, *others = kept
    positions = []
    for position, other in enumerate(others, start=1):
        weighed = outcomes.paired(
            best,
            other,
            comparisons=len(others),
        )
        if weighed is None:
            return None
        if not weighed.apart:
            positions.append(position)
    return Ties(
        tuple(positions),
        f"one seed each, image by image on the same {best.images}",
    )


def _yardstick(spread: Spread | None, images: int | None) -> str:
    if spread:
        return f"the spread over seeds (standard deviation {spread.sd:.4f})"
    if images:
        return f"one seed each on {images} images"
    return "one seed each, of which no spread is known"


def _seeds(count: int) -> str:
    """So many seeds, as an override that a shell takes."""
    if count > 5:
        return f"'seed=range(1,{count + 1})'"
    numbers = range(1, count + 1)
    return f"seed={','.join(map(str, numbers))}"
