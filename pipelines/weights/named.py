"""What `init` names: nothing, a card, or a checkpoint; and the digest that it is known by.

The digest is over the content: the same weights lie elsewhere on another machine.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import absolute
from pipelines.outside import printable
from pipelines.usage import UsageError
from pipelines.weights import cards, hub, layouts, pickled, store
from pipelines.weights.cards import Card

SCRATCH = "scratch"  # the explicit choice of random weights


@dataclass(frozen=True)
class Weights:
    """Weights to start from, on this machine.

    Attributes:
        sha256: of a card's file; of a checkpoint, over the names' ends and the SHA-256 of its files.
        path: the file, or what a checkpoint's files begin with.
        card: None for a checkpoint.
        classes: names of the classes that they tell apart, in order; empty: not known.
    """

    sha256: str
    path: Path
    card: Card | None = None
    classes: tuple[str, ...] = ()

    def tensors(self) -> dict[str, Any] | None:
        """What a card's file holds, by paths in Model Garden's model; None for a checkpoint.

        Raises:
            UsageError: the file is of another network than the card's layout.
        """
        if self.card is None:
            return None
        convert = layouts.LAYOUTS[self.card.layout]
        preprocessing = self.card.preprocessing
        read = pickled.read(self.path)
        try:
            return convert(read, preprocessing["mean"], preprocessing["deviation"])
        # A tensor that the layout names is missing, has other axes, or there are more or fewer of them.
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"{self.path}: is of another network than the layout {self.card.layout} of the card {self.card.name} "
                f"({printable(error, 100)}); layouts that there are: {', '.join(layouts.LAYOUTS)}"
            ) from None


def of_card(name: str, data_dir: str) -> Weights:
    """The weights of a card.

    Raises:
        UsageError: there is no such card, or its file cannot be had.
    """
    card = cards.load(name)
    file = store.obtain(card, data_dir)
    return Weights(card.sha256, file, card)


def of_network(init: str, data_dir: str) -> Weights:
    """The weights of a SavedModel, which is a network too: of a folder, or of a handle of TF Hub.

    Raises:
        UsageError: it cannot be had.
    """
    folder = hub.folder(init, data_dir)
    return Weights(hub.digest(folder), folder)


def of_checkpoint(path: str | Path, manifest: str = "") -> Weights:
    """The weights of a checkpoint: of a prefix, in a folder the best, else the newest; of a SavedModel; or a file of Keras'.

    Args:
        manifest: text of the manifest of the data that it learned from; else that in the run directory around it.

    Raises:
        UsageError: there is none.
    """
    prefix = Path(absolute(str(path)))
    if prefix.suffix == ".h5" and prefix.is_file():
        return Weights(store.digest(prefix), prefix)  # Of Keras Applications.
    if prefix.is_dir():
        prefix = _in_saved_model(prefix) or _in_folder(prefix)
    prefix = prefix.with_name(re.sub(r"\.(index|data-\d+-of-\d+)$", "", prefix.name))
    if not Path(f"{prefix}.index").is_file():
        raise UsageError(
            f"init: {path} is no checkpoint: there is no {prefix}.index; name a card (trellis weights), a checkpoint's "
            f"path without .index, a folder of checkpoints or of a SavedModel, or a run; from random weights: INIT=scratch"
        )
    return Weights(_digest(prefix), prefix, classes=_classes(prefix, manifest))


def files(weights: Weights) -> dict[str, Path]:
    """The files that weights consist of, by their names in a folder of their own, or without a name where they are one.

    The manifest of the classes that they tell apart is among them; none at all where it is not here.
    """
    place = weights.path
    if place.is_file():
        return {"": place}
    if place.is_dir():
        inside = filter(Path.is_file, place.rglob("*"))
        return {str(file.relative_to(place)): file for file in inside}
    by_name = {file.name: file for file in _of_prefix(place)}
    manifest = _manifest(place)
    if manifest:
        by_name[manifest.name] = manifest
    elif weights.classes:
        return {}
    return by_name


# What Model Garden's own keys start from, and how to do without.
INSTEAD = {
    "task.init_checkpoint": "INIT=<path without .index>; from random weights: ARGS=task.init_checkpoint=null",
    "task.quantization.pretrained_original_checkpoint": (
        "ARGS=task.quantization.pretrained_original_checkpoint=<path without .index>; from random weights: null"
    ),
}


def refuse_absent(checkpoint: str, key: str = "task.init_checkpoint") -> None:
    """Refuses what Model Garden's own key names, before the model is built, where nothing is there.

    Args:
        key: one of `INSTEAD`.

    Raises:
        UsageError: no file, or the bucket does not answer.
    """
    if checkpoint.startswith("gs://"):
        is_there = store.is_reachable(checkpoint)
    elif "://" in checkpoint:
        return
    else:
        prefix = absolute(checkpoint)
        is_there = Path(f"{prefix}.index").is_file() or Path(prefix).is_dir()
    if not is_there:
        raise UsageError(
            f"{key}: {checkpoint} is not there or does not answer; bring a copy of its two files, and "
            f"name it: {INSTEAD[key]}"
        )


def _in_saved_model(folder: Path) -> Path | None:
    """The checkpoint inside a SavedModel; None: the folder is none."""
    if not (folder / "saved_model.pb").is_file():
        return None
    return folder / "variables" / "variables"


def _in_folder(folder: Path) -> Path:
    """The checkpoint to start from in a folder: the best, else the newest."""
    if (folder / "checkpoints").is_dir():
        folder = folder / "checkpoints"
    for place in (folder / "best", folder / "last", folder):
        files = sorted(place.glob("*.index"), key=_number)
        if files:
            return files[-1].with_suffix("")
    raise UsageError(f"init: {folder} holds no checkpoint (*.index)")


def _manifest(prefix: Path) -> Path | None:
    """The manifest in the run directory around a checkpoint."""
    for folder in list(prefix.parents)[:3]:
        file = folder / "manifest.json"
        if file.is_file():
            return file
    return None


def _classes(prefix: Path, manifest: str) -> tuple[str, ...]:
    file = _manifest(prefix)
    if file and not manifest:
        manifest = file.read_text()
    return tuple(json.loads(manifest).get("labels", ())) if manifest else ()


def _number(file: Path) -> int:
    match = re.search(r"-(\d+)$", file.stem)
    return int(match[1]) if match else -1


def _of_prefix(prefix: Path) -> list[Path]:
    """The files of a checkpoint."""
    chosen = []
    for file in sorted(prefix.parent.glob("*")):
        if file.name.startswith(f"{prefix.name}.") and file.is_file():
            chosen.append(file)
    return chosen


def _digest(prefix: Path) -> str:
    total = hashlib.sha256()
    for file in _of_prefix(prefix):
        end = file.name.removeprefix(prefix.name)
        total.update(f"{end} {store.digest(file)}\n".encode())
    return total.hexdigest()
