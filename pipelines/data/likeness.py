"""How data differ from the photographs of ImageNet, which nearly all pretrained weights learned from."""

import ast
import importlib.metadata
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from PIL import Image, UnidentifiedImageError

from pipelines.data.manifest import Manifest
from pipelines.outside import printable
from pipelines.system import tfrecord

LOOKED_AT = 32  # pictures, the first of the training split: records are in the order of a hash
NAMED = 5  # classes, at most, in one line
# TFDS' list of ImageNet's names, read and not imported: the package takes seconds.
LIST = "tensorflow_datasets/datasets/siscore/labels.py"
LIST_NAME = "IMAGENET_LABELS_LIST"

Decode = Callable[[bytes], dict[str, Any]]  # of a record, as the tasks have it


def notes(data: Manifest, decode: Decode) -> list[str]:
    """Says what pretrained weights have not seen: grey pictures, classes of other names."""
    said = []
    pictures = list(_pictures(data, decode))
    if pictures and all(map(is_grey, pictures)):
        said.append(
            f"the first {len(pictures)} pictures are grey, the weights learned from coloured ones: they serve, the first "
            "layers fit less well; release the backbone early (frozen=0.1)"
        )
    unknown = unknown_classes(data.labels)
    if data.labels and len(unknown) == len(data.labels):
        shown = [printable(name, 40) for name in unknown[:NAMED]]
        if len(unknown) > NAMED:
            shown.append("…")
        listed = ", ".join(shown)
        said.append(
            f"none of the classes is one of ImageNet's by name ({listed}): what the "
            "weights know is textures and shapes, not these; let the backbone learn too (frozen below 1)"
        )
    return said


def is_grey(content: bytes) -> bool:
    """Whether a picture has no colour: one channel, or three equal ones."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.thumbnail((64, 64))
            coloured = picture.convert("RGB")
            pixels = np.asarray(coloured, np.int16)
    except (UnidentifiedImageError, OSError):
        return False
    least = pixels.min(axis=-1)
    spread = pixels.max(axis=-1) - least
    return bool(spread.max() <= 2)


def unknown_classes(labels: Sequence[str]) -> list[str]:
    """Those names whose words are in none of ImageNet's."""
    known = [_words(name) for name in imagenet_names()]
    unknown = []
    for label in labels:
        words = _words(label)
        if not any(map(words.issubset, known)):
            unknown.append(label)
    return unknown


def imagenet_names() -> list[str]:
    """Names of ImageNet's 1,000 classes, synonyms behind commas."""
    distribution = importlib.metadata.distribution("tensorflow-datasets")
    file = Path(str(distribution.locate_file(LIST)))
    for node in ast.parse(file.read_text()).body:
        if not isinstance(node, ast.Assign):
            continue
        target = ast.unparse(node.targets[0])
        if target == LIST_NAME:
            return list(ast.literal_eval(node.value))
    return []


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower())) or {name}


def _pictures(data: Manifest, decode: Decode) -> Iterator[bytes]:
    """The first pictures of the training split."""
    left = LOOKED_AT
    for shard in data.splits["train"].shards:
        place = epath.Path(data.directory, shard.file)
        with place.open("rb") as file:
            for record in tfrecord.read(file):
                yield decode(record)["image"]
                left -= 1
                if not left:
                    return
