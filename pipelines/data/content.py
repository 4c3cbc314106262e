"""What a source contains, as digests: unchanged files are recognised by size and time of change and not read again."""

import glob
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from etils import epath

from pipelines import config
from pipelines.config import Dataset, absolute
from pipelines.data import files
from pipelines.usage import UsageError

EMBEDDED = {"digits": 2, "digit_scenes": 2, "digit_masks": 2}  # generators of `embedded`; the number goes up with their bytes
WHOLE = ".whole"  # the mark
LOCATIONS = tuple(field for field in config.paths(Dataset) if field != "root")
SEVERAL = {"coco": ("images",), "coco_panoptic": ("images",)}  # fields of a source that take several folders; the second is found under `images 2`
REQUIRED = {"coco": ("images", "annotations"), "coco_panoptic": ("images", "annotations", "masks"), "image_folder": ("images",), "mask_folder": ("images", "masks"), "csv": ("images", "annotations"), "voc": ("images",), "tfds": ("builder",), "tfrecord": ("images",)}
TOGETHER = 64  # files that one thread hashes in a row
AT_ONCE = 32  # remote files that are fetched at the same time
FORMAT = 2  # goes up when shards or manifest are laid out in another way
ALL = ""  # the split of a location given as one path: divided by a hash of the key

Digest = str


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
                found.setdefault(field if number == 1 else f"{field} {number}", {})[split] = _placed(root, path)
    return found


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

    def of(self, place: str) -> dict[str, Digest]:
        """Digest of every file of a folder by its path inside, or of one file under the empty name.

        Raises:
            UsageError: there is nothing at that place.
        """
        stats = dict(_stats(place))
        memory = self._folder / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"
        known: dict[str, list] = json.loads(memory.read_text()) if memory.exists() else {}
        stale = [name for name, stat in stats.items() if stat[1] == "" or known.get(name, [None])[:2] != stat]
        if stale or len(known) != len(stats):
            threads, together = (AT_ONCE, 1) if files.is_remote(place) else (None, TOGETHER)
            with ThreadPoolExecutor(threads) as pool:
                groups = [stale[at : at + together] for at in range(0, len(stale), together)]
                hashed = pool.map(lambda names: [sha256(path_of(place, name)) for name in names], groups)
                fresh = dict(zip(stale, itertools.chain.from_iterable(hashed), strict=True))
            known = {name: [*stat, fresh.get(name) or known[name][2]] for name, stat in stats.items()}
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = memory.with_name(f"{memory.name}.{os.getpid()}")
            partial.write_text(json.dumps(known))
            partial.replace(memory)
        return {name: entry[2] for name, entry in known.items()}


def path_of(place: str, name: str) -> str:
    """Path of a file that `Digests.of` found in a folder, behind a pattern, or as the place itself."""
    pattern = glob.has_magic(place) and not files.is_remote(place)
    return os.path.join(os.path.dirname(place) if pattern else place, name) if name else place


def _stats(place: str) -> Iterator[tuple[str, list[int | str]]]:
    """Size and time of change of every file, sorted by path."""
    if files.is_remote(place):
        yield from files.listed(place)
    elif os.path.isfile(place):
        stat = os.stat(place)
        yield "", [stat.st_size, stat.st_mtime_ns]
    elif glob.has_magic(place):
        for file in sorted(glob.glob(place)):
            stat = os.stat(file)
            yield os.path.basename(file), [stat.st_size, stat.st_mtime_ns]
    elif os.path.isdir(place):
        yield from sorted(_walk(place, ""))
    else:
        raise UsageError(f"{place}: there is no such file or folder")


def _walk(root: str, inside: str) -> Iterator[tuple[str, list[int | str]]]:
    with os.scandir(os.path.join(root, inside)) as entries:
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, name)
            elif entry.is_file():
                stat = entry.stat()
                yield name, [stat.st_size, stat.st_mtime_ns]


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


def find(data_dir: str, dataset: Dataset) -> Found:
    """Looks at a source; files are hashed only where their size or time of change is new.

    Raises:
        UsageError: a part is missing or not given.
    """
    digests = Digests(absolute(data_dir))
    places = locate(data_dir, dataset)
    return Found(places, {field: {split: digests.of(place) for split, place in by_split.items()} for field, by_split in places.items()})


def recipe(dataset: Dataset, version: int) -> Digest:
    """Digest over all that shapes a record beside the source's content: the data set's node, the task's version, the format."""
    # What is noted beside counts too: fingerprints have held the origin from the first format on.
    node = config.substance(asdict(dataset), config.RESULT, config.PASSIVE)
    return digest({"format": FORMAT, "version": version, "node": node})


def fingerprint(dataset: Dataset, version: int, found: Found) -> str:
    """Sixteen hexadecimal digits over the recipe and the source's content."""
    return digest([recipe(dataset, version), found.digests])[:16]
