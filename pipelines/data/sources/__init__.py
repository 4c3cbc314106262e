"""Sources: each lists its examples without reading images, and later loads one at a time on a worker.

The interface of a source module:

    TASKS                                                         tasks whose records it can fill
    listing(request) -> Listing                                   in the launching process, streaming
    load(example, image: Image, request: Request) -> record       on a worker; raises Rejected
    content(example, request) -> bytes                            optional: the image, where it is no file of its own
    objects(example, request) -> int                              where there are any: how many its annotation has

What was read is counted where it is read: by `listing` in its `Tally`, and by `objects`. What becomes of it is counted
where it is written or rejected, and a build in which the two differ fails.
"""

import hashlib
import importlib
import math
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from pipelines.config import Dataset
from pipelines.data import files
from pipelines.data.content import ALL
from pipelines.usage import UsageError


@dataclass(frozen=True)
class Request:
    """What a source is asked to read: paths, and digests of files, by field and split."""

    dataset: Dataset
    places: Mapping[str, Mapping[str, str]]
    digests: Mapping[str, Mapping[str, Mapping[str, str]]]  # empty on workers
    shared: Mapping[str, Any] = field(default_factory=dict)  # what `listing` found out for `load`
    parse: Callable[[bytes], dict[str, list[Any]]] = lambda serialized: {}  # the features of a serialized tf.train.Example
    unfit: Mapping[str, Mapping[str, Mapping[str, tuple[str, str]]]] = field(default_factory=dict)  # code and advice, likewise

    def folder(self, name: str, split: str) -> "Folder":
        """What lies at a place; `name` is a field, or `images 2`."""
        digests = self.digests.get(name, {}).get(split, {})
        return Folder(self.places[name][split], digests, self.unfit.get(name, {}).get(split, {}))


@dataclass(frozen=True)
class Folder:
    """A place of a source: digests of its files, and code and advice of what is unfit, by path inside."""

    path: str
    digests: Mapping[str, str]
    unfit: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def refusal(self, name: str) -> tuple[str, str] | None:
        """Why a path inside is unfit, itself or by a folder that it is in."""
        parts = name.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        return next((self.unfit[path] for path in above if path in self.unfit), None)


@dataclass(frozen=True)
class Example:
    """One example to be: where its bytes lie, and what else its source needs to load it (values that JSON can hold)."""

    split: str
    key: str  # unique in the split
    file: str  # path of the image
    name: str  # path of the image inside its folder
    content: str  # digest over everything the record is made from
    more: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 by path, of those that a worker reads whole


@dataclass(frozen=True, order=True)
class Reject:
    """Something that was left out, why, and what to do about it."""

    split: str
    file: str
    record: str
    code: str
    advice: str
    whole: bool = True  # an example, rather than one of its objects
    objects: int = 0  # those that an example takes with it


class Rejected(Exception):
    """Raised on a worker by what cannot become a record."""

    def __init__(self, code: str, advice: str) -> None:
        super().__init__(code, advice)
        self.code = code
        self.advice = advice


@dataclass
class Tally:
    """What a source met while it listed, counted where it reads and not where it yields; whole once `items` is."""

    examples: int = 0
    objects: int | None = None  # None: they are read on workers
    ballast: list[str] = field(default_factory=list)  # files that are no images by name, and no examples


@dataclass(frozen=True)
class Listing:
    """Class names in the order of their integers, and the examples in any order."""

    labels: tuple[str, ...]
    has_masks: bool
    items: Iterable[Example | Reject]
    shared: Mapping[str, Any] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)


def load(name: str) -> ModuleType:
    """Imports one source."""
    return importlib.import_module(f"pipelines.data.sources.{name}")


def read(example: Example, file: str) -> bytes:
    """The bytes of a file that an example is made from, as they were when it was listed.

    Raises:
        OSError: the file is not there, or cannot be read.
        UsageError: it holds something else by now, under a fingerprint that was taken before.
    """
    content = files.read(file)
    if example.files.get(file) not in (None, hashlib.sha256(content).hexdigest()):
        raise UsageError(f"{file}: {CHANGED}; run the same command again when nothing writes to it any more")
    return content


def position(key: str) -> int:
    """A stable hash of a key, 63 bits: decides the split, the shard and the order inside it."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8], "big") >> 1


def numeric(key: str) -> int:
    """A number for `image/source_id`: the key itself where it is one, else 52 bits of its hash."""
    return int(key) if key.isascii() and key.isdigit() and len(key) < 16 else position(key) >> 11


def split_of(split: str, key: str, dataset: Dataset) -> str:
    """The split as given, or one chosen by a hash of the key where the source is not divided."""
    if split != ALL:
        return split
    # Other bits than those that choose the shard.
    return "validation" if position(f"split {key}") < dataset.validation_fraction * 2**63 else "train"


def objects_of(source: ModuleType, example: Example, request: Request) -> int:
    """How many objects an example's annotation has, whatever becomes of them."""
    return source.objects(example, request) if hasattr(source, "objects") else 0


ESCAPES = ("path_escapes", "a path is taken inside its folder; write it without ../ and not from the root")
CHANGED = "it has changed since it was listed"
HIDDEN = "files whose name starts with a dot are left out; rename the file and its entry"
NAMELESS = "(no file_name)"
NOT_TEXT = ("file_name_not_utf8", "rename the file, and its entry if it has one, to UTF-8")
# Endings and names of files that lie beside images and are none. Whatever else is no image is rejected by name.
_BESIDE = (
    ".txt .md .rst .htm .html .pdf .doc .docx .rtf .csv .tsv .xls .xlsx .json .jsonl .xml .yaml .yml .toml .ini .cfg .log "
    ".py .sh .ipynb .db .lnk .url .md5 .sha256"
)
BALLAST = tuple(_BESIDE.split())
BALLAST_NAMES = ("readme", "license", "licence", "copying", "authors", "changelog", "makefile", "checksums")


def is_ballast(name: str) -> bool:
    """Whether a file is no image by its name, such as README.txt or Thumbs.db."""
    last = name.rsplit("/", 1)[-1].lower()
    return last.endswith(BALLAST) or last in BALLAST_NAMES


def without_ballast(names: Iterable[str], tally: Tally) -> list[str]:
    """Returns the names that are to be images; notes the others."""
    images: list[str] = []
    for name in names:
        (tally.ballast if is_ballast(name) else images).append(name)
    return images


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def folder_of(request: Request, field: str, given: str) -> Folder:
    """The folder of a field for a split of another field.

    Raises:
        UsageError: the two name different splits.
    """
    return folders_of(request, field, given)[0]


def folders_of(request: Request, field: str, given: str) -> list[Folder]:
    """The folders of a field for a split of another field, in their order.

    Raises:
        UsageError: the two name different splits.
    """
    split = given if given in request.places[field] else ALL
    if split not in request.places[field]:
        raise UsageError(
            f"dataset.{field} has {', '.join(request.places[field])}, other locations have {given or 'one path'}; "
            "give all of them the same splits"
        )
    fields = [name for name, by_split in request.places.items() if name.split()[0] == field and split in by_split]
    return [request.folder(name, split) for name in fields]


def files_of(request: Request, field: str) -> dict[str, str]:
    """Digests of a field's files, by the split that each is for.

    Raises:
        UsageError: one is a folder.
    """
    for given, found in request.digests[field].items():
        if "" not in found:
            raise UsageError(f"dataset.{field}: {request.places[field][given]} is a folder; give the file in it")
    return {given: found[""] for given, found in request.digests[field].items()}


def find(name: str, folders: Sequence[Folder], kind: str = "image") -> tuple[str, str]:
    """Path and digest of a file that an annotation names, in the first folder that has it.

    The verdict depends on the name and on what lies in the folders, not on where they lie.

    Raises:
        Rejected: no folder has it, it leads outside, or two folders have different files of that name.
    """
    if not is_text(name):
        raise Rejected(*NOT_TEXT)
    plain = posixpath.normpath(name)
    if plain.startswith(("/", "../")) or plain == "..":
        raise Rejected(*ESCAPES)
    found = [(f"{folder.path}/{plain}", folder.digests[plain]) for folder in folders if plain in folder.digests]
    if not found or not name:
        raise _missing(plain if name else "", folders, kind)
    if len({digest for _, digest in found}) > 1:
        raise Rejected(f"{kind}_ambiguous", f"different files have this name: {' and '.join(path for path, _ in found)}; rename or remove one")
    return found[0]


def _missing(name: str, folders: Sequence[Folder], kind: str) -> Rejected:
    refusal = next((reason for folder in folders if (reason := folder.refusal(name))), None)
    if refusal:
        return Rejected(*refusal)
    if any(part.startswith(".") and part != "." for part in name.split("/")):
        return Rejected(f"{kind}_missing", HIDDEN)
    where = "in none of the folders" if len(folders) > 1 else "not there"
    return Rejected(f"{kind}_missing", f"the file is {where}; add it or remove its entry")


def digest(*parts: str) -> str:
    """Digest over parts."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def clipped(box: Any, height: int, width: int) -> tuple[tuple[float, float, float, float], bool]:
    """(top, left, bottom, right) of a box [x, y, width, height] inside an image, and whether it had to be cut.

    Raises:
        Rejected: it is no box, has no area, or lies outside.
    """
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        raise Rejected("box_malformed", f"box {box!r} is not [x, y, width, height] in pixels; correct it, or remove the object")
    left, top, box_width, box_height = (float(value) for value in box)
    if box_width <= 0 or box_height <= 0:
        raise Rejected("box_empty", f"box {box} has no area; correct it, or remove the object")
    bottom, right = top + box_height, left + box_width
    inner = (max(0.0, top), max(0.0, left), min(float(height), bottom), min(float(width), right))
    if inner[0] >= inner[2] or inner[1] >= inner[3]:
        raise Rejected("box_outside", f"box {box} lies outside the image of {width}x{height}; correct it, or remove the object")
    # As float32 and as a fraction, the way it is stored, the box must still have an area.
    if (inner[2] - inner[0]) / height < 1e-6 or (inner[3] - inner[1]) / width < 1e-6:
        raise Rejected("box_empty", f"box {box} has no area inside the image; correct it, or remove the object")
    return inner, inner != (top, left, bottom, right)
