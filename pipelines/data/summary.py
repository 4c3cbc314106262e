"""What one shard holds, as its worker counted it; the manifest adds the shards up."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from etils import epath

from pipelines.data import checks, keys, ordinary
from pipelines.data.boxes import Box
from pipelines.data.example import Example, Reject, Rejected
from pipelines.data.images import Image
from pipelines.system import durable

SUFFIX = ".summary.json"
SHARDS = "shards.json"  # the summaries of a finished build, by file name


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
    contents: list[str] = field(default_factory=list)  # first digits of the images' digests
    rejects: list[list] = field(default_factory=list)
    listed: str = ""  # SHA-256 of the list of its examples
    # Numbers of the records whose picture only TensorFlow can judge; None: nobody has looked.
    unusual: list[int] | None = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """What was counted of one example, as `add` takes it."""
        return {name: value for name, value in vars(self).items() if value}

    def add(self, counts: Mapping[str, Any]) -> None:
        """Adds what was counted of the next example."""
        number = self.examples  # of its record; counted itself below
        for name, value in counts.items():
            if name == "unusual":
                value = [number]
            if isinstance(value, dict):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def read(self, objects: int) -> None:
        """Notes an example that was read, with the objects that its annotation has."""
        self.examples_read += 1
        self.objects_read += objects

    def reject(
        self,
        example: Example,
        rejected: Rejected,
        record: str | None = None,
        objects: int = 0,
    ) -> None:
        """Notes an example and the objects that go with it, or one object of it, that was left out."""
        entry = Reject(
            split=example.split,
            file=example.name,
            record=example.key if record is None else record,
            code=rejected.code,
            advice=rejected.advice,
            whole=record is None,
            objects=objects,
        )
        self.rejects.append(list(astuple(entry)))

    def count(
        self,
        record: Mapping[str, Any],
        pictures: Sequence[Image],
        *,
        clipped: int = 0,
        pixels: Mapping[str, int] | None = None,
    ) -> None:
        """Adds one record.

        Args:
            pictures: the frames of a clip, or the one image.
            clipped: boxes of it that were cut.
            pixels: of its mask of classes, by class.
        """
        image = pictures[0]
        if self.unusual is not None and not all(map(ordinary.is_ordinary, pictures)):
            self.unusual.append(self.examples)
        self.examples += 1
        self.clipped += clipped
        for kind in {picture.format for picture in pictures}:
            self.formats[kind] += 1
        self.image_sizes[f"{_bin(image.width, 32)}x{_bin(image.height, 32)}"] += 1
        self.contents.append(record["sha256"][:16])
        if "key" in record:
            self.ids_hashed += _is_hashed(record["id"], record["key"])
        if "text" in record:
            self.classes[record["text"]] += 1
        for label, count in (pixels or {}).items():
            self.classes[label] += count
        for item in record.get("objects", ()):
            self._count_object(item, image)

    def _count_object(self, item: Mapping[str, Any], image: Image) -> None:
        self.objects += 1
        self.masks += item.get("mask") is not None
        self.classes[item["text"]] += 1
        share = Box(*item["box"]).area()
        side = math.sqrt(share * image.height * image.width)
        self.box_sizes[str(_bin(side, 8))] += 1


def _is_hashed(number: int, key: str) -> bool:
    """Whether a record's number is made from its key, rather than the key itself or the source's own."""
    return number == keys.numeric(key) and str(number) != key


def _bin(value: float, width: int) -> int:
    return int(value) // width * width


def write(summary: Summary, folder: epath.Path) -> None:
    """Puts a summary with its shard; it appears whole."""
    summary.contents.sort()
    summary.rejects.sort()
    durable.write_whole(
        checks.place(folder, summary.file + SUFFIX),
        json.dumps(vars(summary)),
    )


def read(folder: epath.Path, shard: str) -> Summary | None:
    """The summary of a shard, or None."""
    file = checks.place(folder, shard + SUFFIX)
    return from_entry(json.loads(file.read_text())) if file.exists() else None


def from_entry(entry: Mapping[str, Any]) -> Summary:
    """A summary as it was written; nobody has looked for unusual pictures where it does not list them."""
    return Summary(**{"unusual": None, **entry})


def finished(folder: epath.Path) -> dict[str, dict[str, Any]]:
    """What a finished build has written of its shards, by file name; nothing where there is none."""
    file = folder / SHARDS
    return json.loads(file.read_text()) if file.exists() else {}


def unusual(folder: epath.Path, shards: Iterable[str]) -> dict[str, list[int] | None]:
    """Numbers of the records that only TensorFlow can judge, by shard; None: all of a shard's."""
    earlier = finished(folder)
    numbers: dict[str, list[int] | None] = {}
    for shard in shards:
        counted = read(folder, shard)
        numbers[shard] = counted.unusual if counted else earlier.get(shard, {}).get("unusual")
    return numbers


def remove(folder: epath.Path, shard: str) -> None:
    """Takes a shard's summary away: the shard counts as not written."""
    checks.place(folder, shard + SUFFIX).unlink(missing_ok=True)


def total(summaries: Iterable[Summary], name: str) -> dict[str, int]:
    """One count over several shards, sorted by its keys, numbers as numbers."""
    counts: Counter[str] = Counter()
    for summary in summaries:
        counts.update(getattr(summary, name))
    return {key: counts[key] for key in sorted(counts, key=_order)}


def _order(key: str) -> tuple[int, str]:
    """Numbers by their size, behind all that is none."""
    return (len(key), key) if key.isdigit() else (0, key)
