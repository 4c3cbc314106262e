"""Where a data set's source lies: absolute paths from what the data set says, checked before they are read."""

from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from pipelines import config
from pipelines.config import Dataset, absolute
from pipelines.data import files, folders, sources
from pipelines.data.keys import ALL, SPLITS
from pipelines.data.listing import Facts
from pipelines.usage import UsageError, nearest

# Generators of `embedded`; the number goes up with their bytes.
EMBEDDED = {
    "digits": 2,
    "digit_scenes": 2,
    "digit_masks": 2,
    "moving_digits": 1,
    "digit_volumes": 1,
}
WHOLE = ".whole"  # in an embedded source in a bucket: the last file to come
FIELDS = tuple(field for field in config.paths(Dataset) if field != "root")
MOST_SHARDS = 10_000

Paths = dict[str, dict[str, str]]  # by field and split


def embedded_folder(data_dir: str, dataset: Dataset) -> epath.Path:
    """Where the embedded source of a data set lies or will lie."""
    if dataset.embedded not in EMBEDDED:
        says = f"no generator {dataset.embedded!r}; there are: {', '.join(EMBEDDED)}"
        raise UsageError(f"dataset.embedded: {says}")
    _check_addresses(data_dir, dataset)
    name = f"{dataset.embedded}-{EMBEDDED[dataset.embedded]}-{dataset.seed}"
    return epath.Path(absolute(data_dir)) / "embedded" / name


def is_whole(folder: epath.Path) -> bool:
    """Whether an embedded source is complete.

    On disk its folder is renamed into place; in a bucket a mark is written last.
    """
    if files.is_remote(str(folder)):
        return (folder / WHOLE).exists()
    return folder.exists()


def locate(data_dir: str, dataset: Dataset) -> Paths:
    """Absolute paths by field and split; split `ALL` where a field is not divided.

    Raises:
        UsageError: the source is unknown, lacks a field, or a field is neither a path nor a mapping
            from split to path.
    """
    source = sources.load(dataset.source)
    _check_required(dataset, source.FACTS)
    root = _root(data_dir, dataset)
    _check_addresses(data_dir, dataset)
    _check_splits(dataset)
    if hasattr(source, "locations"):
        return source.locations(dataset)
    paths: Paths = {}
    for field in FIELDS:
        value = getattr(dataset, field)
        if value is None:
            continue
        by_split = value if isinstance(value, dict) else {ALL: value}
        for split, given in by_split.items():
            for number, path in enumerate(_listed(field, given, source.FACTS), start=1):
                name = field if number == 1 else f"{field} {number}"
                placed = _placed(root, path)
                _check_pattern(field, placed, source.FACTS)
                paths.setdefault(name, {})[split] = placed
    return paths


def _root(data_dir: str, dataset: Dataset) -> epath.Path | None:
    """Where relative paths start."""
    if dataset.embedded:
        return embedded_folder(data_dir, dataset)
    return epath.Path(absolute(dataset.root)) if dataset.root else None


def _check_required(dataset: Dataset, facts: Facts) -> None:
    """Refuses a data set that lacks something its source cannot do without."""
    absent = ["root"] if dataset.root == "" else []
    absent += [field for field in facts.required if not getattr(dataset, field)]
    if absent:
        fields = " ".join(f"dataset.{field}=<path>" for field in absent)
        command = f'make data DATA={dataset.name} ARGS="{fields}"'
        raise UsageError(f"dataset {dataset.name} needs {fields}; as in: {command}")


def _listed(field: str, given: Any, facts: Facts) -> Sequence[str]:
    """The paths that a field gives for one split."""
    takes_several = field in facts.several
    paths = given if takes_several and isinstance(given, list) else [given]
    if not paths or not all(isinstance(path, str) and path for path in paths):
        name = f"dataset.{field}"
        ways = f"{name}=<path> or {name}={{train:<path>,validation:<path>}}"
        if takes_several:
            ways = f"{ways}, several as {name}=[<path>,<path>]"
        raise UsageError(f"{name}: {given!r} is not a path; write {ways}")
    return paths


def _check_pattern(field: str, path: str, facts: Facts) -> None:
    """Refuses a pattern for a source that takes none."""
    if not facts.patterns and folders.is_pattern(path):
        says = "there is no such file or folder, and only dataset=tfrecord takes a pattern"
        raise UsageError(f"dataset.{field}: {path}: {says}")


def _placed(root: epath.Path | None, path: str) -> str:
    if files.is_remote(path):
        return path.rstrip("/")
    return str(root / path) if root else absolute(path)


def _check_splits(dataset: Dataset) -> None:
    """Refuses a split that nothing trains or evaluates on."""
    for name in (*FIELDS, "shards"):
        value = getattr(dataset, name)
        if not isinstance(value, dict):
            continue
        for split, given in value.items():
            if split not in SPLITS:
                advice = nearest(str(split), SPLITS)
                raise UsageError(f"dataset.{name}: there is no split {split!r}{advice}")
            if name == "shards" and not _is_count(given):
                says = f"{given!r} is no count from 1 to {MOST_SHARDS}"
                raise UsageError(f"dataset.shards.{split}: {says}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 < value <= MOST_SHARDS


def _check_addresses(data_dir: str, dataset: Dataset) -> None:
    """Refuses addresses that nothing here reads.

    A source may lie on disk, on gs:// and on s3://; records on disk and on gs://, where TensorFlow
    reads them; adopted records, and the links to them, on disk.
    """
    is_adopted = dataset.source in sources.names() and sources.facts(dataset.source).adopted
    for field, address in _addresses(dataset):
        if is_adopted:
            says = "adopted records are linked, not rewritten, and must lie on local disk"
            raise UsageError(f"dataset.{field}: {address}: {says}; copy them or mount them")
        files.check(f"dataset.{field}", address)
    if not files.is_remote(data_dir):
        return
    scheme = data_dir.partition("://")[0]
    if scheme != "gs":
        says = f"TensorFlow as installed reads local paths and gs://, not {scheme}://"
        raise UsageError(f"data_dir: {data_dir}: {says}; choose one of these")
    if is_adopted:
        says = "links to adopted records must lie on local disk; give a local data_dir"
        raise UsageError(f"data_dir: {data_dir}: {says}")
    files.check("data_dir", data_dir)


def _addresses(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Fields and what they say that is no path on disk."""
    for field in ("root", *FIELDS):
        for path in _flat(getattr(dataset, field)):
            if isinstance(path, str) and files.is_remote(path):
                yield field, path


def _flat(value: Any) -> Iterator[Any]:
    """The paths in a path, a list of paths, or a mapping to either."""
    parts = value.values() if isinstance(value, dict) else [value]
    for part in parts:
        yield from part if isinstance(part, list) else [part]
