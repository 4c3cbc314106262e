"""What one shard holds, as its worker counted it; the manifest adds the shards up."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from typing import Any

from etils import epath

from pipelines.data import checks
from pipelines.data.images import Image
from pipelines.data.sources import Example, Reject, Rejected, numeric
from pipelines.system import durable

SUFFIX = ".summary.json"


@dataclass
class Summary:
    """Counts over one shard, and what was left out of it."""

    file: str
    inputs: str
    examples_read: int = 0  # counted where they are read, whatever becomes of them
    objects_read: int = 0
    examples: int = 0
    bytes: int = 0
    sha256: str = ""
    objects: int = 0
    masks: int = 0
    clipped: int = 0
    ids_hashed: int = 0  # records whose number for `image/source_id` is made from their key
    formats: dict[str, int] = field(default_factory=Counter)
    classes: dict[str, int] = field(default_factory=Counter)
    image_sizes: dict[str, int] = field(default_factory=Counter)
    box_sizes: dict[str, int] = field(default_factory=Counter)
    contents: list[str] = field(default_factory=list)  # of images, as the first digits of their digests
    rejects: list[list] = field(default_factory=list)

    def read(self, objects: int) -> None:
        """Notes an example that was read, with the objects that its annotation has."""
        self.examples_read += 1
        self.objects_read += objects

    def reject(self, example: Example, rejected: Rejected, record: str | None = None, objects: int = 0) -> None:
        """Notes an example and the objects that go with it, or one object of it, that was left out."""
        key = example.key if record is None else record
        reason = (rejected.code, rejected.advice)
        entry = Reject(example.split, example.name, key, *reason, whole=record is None, objects=objects)
        self.rejects.append(list(astuple(entry)))

    def count(self, record: dict[str, Any], image: Image) -> None:
        """Adds one record, and takes out of it what is only counted."""
        self.examples += 1
        self.formats[image.format] += 1
        self.image_sizes[f"{_bin(image.width, 32)}x{_bin(image.height, 32)}"] += 1
        self.contents.append(record["sha256"][:16])
        self.clipped += record.pop("clipped", 0)
        self.ids_hashed += (
            "key" in record and record["id"] == numeric(record["key"]) and str(record["id"]) != record["key"]
        )
        for label, pixels in record.pop("pixels", {}).items():
            self.classes[label] += pixels
        if "text" in record:
            self.classes[record["text"]] += 1
        for item in record.get("objects", ()):
            self.objects += 1
            self.masks += item.get("mask") is not None
            self.classes[item["text"]] += 1
            side = math.sqrt(
                (item["box"][2] - item["box"][0]) * (item["box"][3] - item["box"][1]) * image.height * image.width
            )
            self.box_sizes[str(_bin(side, 8))] += 1


def _bin(value: float, width: int) -> int:
    return int(value) // width * width


def write(summary: Summary, folder: epath.Path) -> None:
    """Puts a summary with its shard; it appears whole."""
    summary.contents.sort()
    summary.rejects.sort()
    durable.write_whole(checks.place(folder, summary.file + SUFFIX), json.dumps(vars(summary)))


def read(folder: epath.Path, shard: str) -> Summary | None:
    """The summary of a shard, or None."""
    file = checks.place(folder, shard + SUFFIX)
    return Summary(**json.loads(file.read_text())) if file.exists() else None


def remove(folder: epath.Path, shard: str) -> None:
    """Takes a shard's summary away: the shard counts as not written."""
    checks.place(folder, shard + SUFFIX).unlink(missing_ok=True)


def total(summaries: Iterable[Summary], name: str) -> dict[str, int]:
    """One count over several shards, sorted by its keys, numbers as numbers."""
    counts: Counter[str] = Counter()
    for summary in summaries:
        counts.update(getattr(summary, name))
    return {key: counts[key] for key in sorted(counts, key=lambda key: (len(key), key) if key.isdigit() else (0, key))}
