"""Cards of pretrained weights, `conf/weights/<name>.yaml`: what a file holds, where it comes from, what it fits."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from pipelines import config, own
from pipelines.usage import UsageError, file_name, nearest
from pipelines.weights.layouts import LAYOUTS

FOLDER = config.FOLDER / "weights"


@dataclass(frozen=True)
class Card:
    """One file of weights.

    Attributes:
        sources: where the file comes from, tried in order after the local store: `{package, path}` or `{url}`.
        layout: how its tensors become Model Garden's: a key of `pipelines.weights.layouts.LAYOUTS`.
        backbone: the settings of `task.model.backbone` that it fits.
        norm_activation: likewise of `task.model.norm_activation`.
        preprocessing: mean and deviation, of pixels from 0 to 255, that it was trained with.
        classes: how many its classifier tells apart, 0 without one; or their names.
        figure: metric, value, source.
    """

    name: str
    file: str
    sha256: str
    licence: str
    sources: tuple[Mapping[str, str], ...]
    layout: str
    backbone: Mapping[str, Any]
    data: str
    preprocessing: Mapping[str, Any]
    bytes: int = 0
    norm_activation: Mapping[str, Any] = field(default_factory=dict)
    classes: Any = 0
    input_size: int = 0
    params_m: float = 0.0
    flops_b: float = 0.0
    figure: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""

    @property
    def headline(self) -> str:
        """One line about it."""
        fits = self.backbone.get("type", "?")
        said = f"{self.params_m} M parameters, {self.licence}, for backbone {fits}"
        value = self.figure.get("value")
        return f"{said}, {self.figure['metric']} {value}" if value else said


def names() -> list[str]:
    """Every card there is."""
    return sorted(own.choices(config.FOLDER, "weights"))


def load(name: str) -> Card:
    """The card of this name.

    Raises:
        UsageError: there is none, or it says too little or what no card says.
    """
    return read(file(name))


def file(name: str) -> Path:
    """The file of a card, ours or the user's own.

    Raises:
        UsageError: there is none.
    """
    found = own.choices(config.FOLDER, "weights").get(file_name(name, "init"))
    if found is None:
        raise UsageError(
            f"init: there is no card {name!r}{nearest(name, names())}\nall of them: trellis weights"
        )
    return found


def read(file: Path) -> Card:
    """The card in a file.

    Raises:
        UsageError: it says too little or what no card says.
    """
    document = yaml.safe_load(file.read_text())
    if not isinstance(document, dict):
        raise UsageError(f"{file}: is no card: it has no keys")
    known = [part.name for part in fields(Card) if part.name != "name"]
    for key in document:
        if key not in known:
            raise UsageError(f"{file}: {key}: no card says that{nearest(str(key), known)}")
    needed = [part.name for part in fields(Card) if part.default is part.default_factory is MISSING]
    absent = sorted(set(needed) - {"name"} - set(document))
    if absent:
        raise UsageError(f"{file}: a card says {', '.join(absent)} too")
    layout = document["layout"]
    if layout not in LAYOUTS:
        raise UsageError(f"{file}: layout: there is no {layout!r}{nearest(layout, list(LAYOUTS))}")
    trouble = _preprocessing_trouble(document["preprocessing"])
    if trouble:
        raise UsageError(f"{file}: preprocessing: {trouble}")
    document["sources"] = tuple(document["sources"])
    return Card(name=file.stem, **document)


def _preprocessing_trouble(said: Any) -> str | None:
    """What is wrong with a card's preprocessing, which would give other features and no error; None: nothing."""
    keys = set(said) if isinstance(said, Mapping) else set()
    if keys != {"mean", "deviation"}:
        return "give mean and deviation, and nothing else: (x - mean) / deviation of pixels from 0 to 255"
    for key, numbers in said.items():
        if not isinstance(numbers, list) or len(numbers) != 3:
            return f"{key}: give three numbers, for red, green and blue"
        are_numbers = [isinstance(number, int | float) for number in numbers]
        if not all(are_numbers):
            return f"{key}: {numbers} are not all numbers"
    if min(said["deviation"]) < 1:
        return (
            f"deviation: {said['deviation']} is of pixels from 0 to 1; mean and deviation are of pixels from 0 to 255: "
            "give 255 times both"
        )
    return None


def misfits(wanted: Any, there: Any, path: str) -> list[str]:
    """Lines `key=value, there is value` for every leaf of `wanted` that is another in `there`."""
    if not isinstance(wanted, Mapping):
        return [] if wanted == there else [f"{path}={wanted}, there is {there}"]
    lines = []
    for key, value in wanted.items():
        inner = there.get(key) if isinstance(there, Mapping) else None
        lines += misfits(value, inner, f"{path}.{key}")
    return lines


def experiments(card: Card) -> list[str]:
    """Experiments that start from these weights as they are written."""
    chosen = []
    for name, file in own.choices(config.FOLDER, "experiment").items():
        # Published recipes start from what they say; reading them takes a second.
        if name.startswith("published/"):
            continue
        if yaml.safe_load(file.read_text()).get("init") == card.name:
            chosen.append(name)
    return chosen
