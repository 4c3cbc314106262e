"""What a source contains, as digests: unchanged files are recognised by size and time of change and not read again."""

import hashlib
import itertools
import json
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from etils import epath

from pipelines import config
from pipelines.config import Dataset, absolute
from pipelines.data import encoders, files, folders
from pipelines.system import durable
from pipelines.usage import UsageError, file_name, nearest

EMBEDDED = {"digits": 2, "digit_scenes": 2, "digit_masks": 2}  # generators of `embedded`; the number goes up with their bytes
WHOLE = ".whole"  # the mark
LOCATIONS = tuple(field for field in config.paths(Dataset) if field != "root")
SEVERAL = {"coco": ("images",), "coco_panoptic": ("images",)}  # fields of a source that take several folders; the second is found under `images 2`
REQUIRED = {"coco": ("images", "annotations"), "coco_panoptic": ("images", "annotations", "masks"), "image_folder": ("images",), "mask_folder": ("images", "masks"), "csv": ("images", "annotations"), "voc": ("images",), "tfds": ("builder",), "tfrecord": ("images",)}
TOGETHER = 64  # files that one thread hashes in a row
AT_ONCE = 32  # remote files that are fetched at the same time
MOST_SHARDS = 10_000
FORMAT = 4  # goes up when shards or manifest are laid out in another way
ALL = ""  # the split of a location given as one path: divided by a hash of the key

Digest = str
Unfit = dict[str, tuple[str, str]]  # code and advice by path inside a place
SPLITS = ("train", "validation", "test")


def embedded_folder(data_dir: str, dataset: Dataset) -> epath.Path:
    """Where the embedded source of a data set lies or will lie."""
    if dataset.embedded not in EMBEDDED:
        raise UsageError(f"dataset.embedded: no generator {dataset.embedded!r}; there are: {', '.join(EMBEDDED)}")
    _check_places(data_dir, dataset)
    name = f"{dataset.embedded}-{EMBEDDED[dataset.embedded]}-{dataset.seed}"
    return epath.Path(absolute(data_dir)) / "embedded" / name


def is_whole(folder: epath.Path) -> bool:
    """Whether an embedded source is there: on disk its folder appears at once, in a bucket a mark is the last to come."""
    return (folder / WHOLE if files.is_remote(str(folder)) else folder).exists()


def tfds_folder(dataset: Dataset) -> epath.Path:
    """Where TensorFlow Datasets keeps a prepared builder: <root>/<name>[/<config>]/<version>.

    Raises:
        UsageError: no version is given; without one the data could change under the same name.
    """
    name, _, version = str(dataset.builder).partition(":")
    if not version:
        raise UsageError(f"dataset.builder: {name!r} has no version; write dataset.builder={name}:<version>, as in coco/2017:1.1.0")
    for part in (*name.split("/"), version):
        file_name(part, "dataset.builder")
    return epath.Path(absolute(dataset.root or "~/tensorflow_datasets")) / name / version


def locate(data_dir: str, dataset: Dataset) -> dict[str, dict[str, str]]:
    """Absolute paths by field and split; split `ALL` where a field is not divided.

    Raises:
        UsageError: the source is unknown, lacks a field, or a field is neither a path nor a mapping from split to path.
    """
    if dataset.source not in REQUIRED:
        raise UsageError(f"dataset.source: no source {dataset.source!r}; there are: {', '.join(REQUIRED)}")
    absent = [field for field in ("root", *REQUIRED[dataset.source]) if getattr(dataset, field) == "" or (field != "root" and not getattr(dataset, field))]
    if absent:
        fields = " ".join(f"dataset.{field}=<path>" for field in absent)
        raise UsageError(f"dataset {dataset.name} needs {fields}; as in: make data DATA={dataset.name} ARGS=\"{fields}\"")
    root = embedded_folder(data_dir, dataset) if dataset.embedded else epath.Path(absolute(dataset.root)) if dataset.root else None
    _check_places(data_dir, dataset)
    _check_splits(dataset)
    if dataset.source == "tfds":
        return {"images": {ALL: str(tfds_folder(dataset))}}
    found: dict[str, dict[str, str]] = {}
    for field in LOCATIONS:
        value = getattr(dataset, field)
        if value is None:
            continue
        by_split = value if isinstance(value, dict) else {ALL: value}
        several = field in SEVERAL.get(dataset.source, ())
        for split, given in by_split.items():
            paths = given if several and isinstance(given, list) else [given]
            if not paths or not all(isinstance(path, str) and path for path in paths):
                more = f", several as dataset.{field}=[<path>,<path>]" if several else ""
                raise UsageError(f"dataset.{field}: {given!r} is not a path; write dataset.{field}=<path> or dataset.{field}={{train:<path>,validation:<path>}}{more}")
            for number, path in enumerate(paths, start=1):
                found.setdefault(field if number == 1 else f"{field} {number}", {})[split] = _checked(field, _placed(root, path), dataset.source)
    return found


def _check_splits(dataset: Dataset) -> None:
    """Refuses a split that nothing trains or evaluates on."""
    for name in (*LOCATIONS, "shards"):
        value = getattr(dataset, name)
        for split, given in value.items() if isinstance(value, dict) else ():
            if split not in SPLITS:
                raise UsageError(f"dataset.{name}: there is no split {split!r}{nearest(str(split), SPLITS)}")
            if name == "shards" and not (isinstance(given, int) and 0 < given <= MOST_SHARDS):
                raise UsageError(f"dataset.shards.{split}: {given!r} is no count from 1 to {MOST_SHARDS}")


def _checked(part: str, path: str, source: str) -> str:
    """The path, unless it is a pattern for a source that takes none."""
    if source != "tfrecord" and folders.is_pattern(path):
        raise UsageError(f"dataset.{part}: {path}: there is no such file or folder, and only dataset=tfrecord takes a pattern")
    return path


def _placed(root: epath.Path | None, path: str) -> str:
    if files.is_remote(path):
        return path.rstrip("/")
    return str(root / path) if root else absolute(path)


def _check_places(data_dir: str, dataset: Dataset) -> None:
    """A source may lie on disk, on gs:// and on s3://; records on disk and on gs://, where TensorFlow reads them."""
    given = {"root": dataset.root, **{field: getattr(dataset, field) for field in LOCATIONS}}
    for field, value in given.items():
        paths = [path for part in (value.values() if isinstance(value, dict) else [value]) for path in (part if isinstance(part, list) else [part])]
        for path in paths:
            if isinstance(path, str) and files.is_remote(path):
                if dataset.source == "tfrecord":
                    raise UsageError(f"dataset.{field}: {path}: adopted records are linked, not rewritten, and must lie on local disk; copy them or mount them")
                files.check(f"dataset.{field}", path)
    if files.is_remote(data_dir):
        if (scheme := data_dir.partition("://")[0]) != "gs":
            raise UsageError(f"data_dir: {data_dir}: TensorFlow as installed reads local paths and gs://, not {scheme}://; choose one of these")
        if dataset.source == "tfrecord":
            raise UsageError(f"data_dir: {data_dir}: links to adopted records must lie on local disk; give a local data_dir")
        files.check("data_dir", data_dir)


class Digests:
    """SHA-256 of files, remembered in `<data_dir>/digests/` with their size and time of change, or what a store has for it."""

    def __init__(self, data_dir: str) -> None:
        self._folder = epath.Path(data_dir) / "digests"

    def of(self, place: str, named: Collection[str] = ()) -> tuple[dict[str, Digest], Unfit]:
        """Digests of the files at a place and what is unfit there, each by its path inside.

        Args:
            named: real paths of the folders into which links may lead.

        Raises:
            UsageError: there is nothing at that place.
        """
        listed = folders.contents(place, named)
        memory = self._folder / f"{hashlib.sha256(place.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.json"
        known: dict[str, list] = json.loads(memory.read_text()) if memory.exists() else {}
        stale = [name for name, stat in listed.files.items() if stat[1] == "" or known.get(name, [None])[:2] != stat]
        if stale or len(known) != len(listed.files):
            fresh = _digests(place, stale)
            unread = {name: digest for name, digest in fresh.items() if isinstance(digest, tuple)}
            listed.unfit.update(unread)
            read = {name: stat for name, stat in listed.files.items() if name not in unread}
            known = {name: [*stat, fresh[name] if name in fresh else known[name][2]] for name, stat in read.items()}
            self._remember(memory, known)
        return {name: entry[2] for name, entry in known.items()}, listed.unfit

    def _remember(self, memory: epath.Path, known: dict[str, list]) -> None:
        durable.write_whole(memory, json.dumps(known))


def _digests(place: str, names: list[str]) -> dict[str, Digest | tuple[str, str]]:
    """Digest of each file, or the code and the advice of one that cannot be read."""
    threads, together = (AT_ONCE, 1) if files.is_remote(place) else (None, TOGETHER)
    groups = [names[at : at + together] for at in range(0, len(names), together)]
    with ThreadPoolExecutor(threads) as pool:
        digests = pool.map(lambda group: [_read(place, name) for name in group], groups)
        return dict(zip(names, itertools.chain.from_iterable(digests), strict=True))


def _read(place: str, name: str) -> Digest | tuple[str, str]:
    try:
        return sha256(folders.path_of(place, name))
    except OSError as error:
        if not name:
            raise UsageError(f"{place}: {error.strerror or error}") from None
        return "file_unreadable", f"{error.strerror or error}; make it readable, or remove it"


def sha256(file: str) -> Digest:
    """Digest of a file's content."""
    with files.opened(file) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def digest(value: Any) -> Digest:
    """Digest of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Found:
    """A source: where its parts lie and what they contain, by field and split."""

    places: dict[str, dict[str, str]]
    digests: dict[str, dict[str, dict[str, Digest]]]  # of files, by their path inside the place
    unfit: dict[str, dict[str, Unfit]]  # what is neither file nor folder, likewise


def find(data_dir: str, dataset: Dataset) -> Found:
    """Looks at a source; files are hashed only where their size or time of change is new.

    Raises:
        UsageError: a part is missing or not given.
    """
    digests = Digests(absolute(data_dir))
    places = locate(data_dir, dataset)
    named = _named(dataset, places)
    found = Found(places, {}, {})
    for part, by_split in places.items():
        looked = {split: digests.of(place, named) for split, place in by_split.items()}
        found.digests[part] = {split: known for split, (known, _) in looked.items()}
        found.unfit[part] = {split: unfit for split, (_, unfit) in looked.items()}
    return found


def _named(dataset: Dataset, places: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Real paths of the local folders that the user has named: links of a source may lead into them."""
    given = {place for by_split in places.values() for place in by_split.values()}
    given |= {absolute(dataset.root)} if dataset.root else set()
    starts = {folders.parted(place)[0] if folders.is_pattern(place) else place for place in given}
    return sorted(os.path.realpath(place) for place in starts if not files.is_remote(place) and os.path.isdir(place))


def recipe(dataset: Dataset, version: int) -> Digest:
    """Digest over all that shapes a record beside the source's content.

    That is the data set's node, the task's version, the format, and the encoders that the records go through.
    """
    node = config.substance(asdict(dataset), config.RESULT)
    return digest({"format": FORMAT, "version": version, "node": node, "encoders": encoders.used(dataset)})


def fingerprint(dataset: Dataset, version: int, found: Found) -> str:
    """Sixteen hexadecimal digits over the recipe and the source's content."""
    # What is unfit is rejected by name, and so is part of what is built.
    unfit = {path: reason[0] for path, reason in _flat(found.unfit)}
    return digest([recipe(dataset, version), found.digests, *([unfit] if unfit else [])])[:16]


def _flat(unfit: Mapping[str, Mapping[str, Unfit]]) -> Iterator[tuple[str, tuple[str, str]]]:
    for name, by_split in unfit.items():
        for split, reasons in by_split.items():
            yield from ((f"{name} {split} {path}", reason) for path, reason in reasons.items())
