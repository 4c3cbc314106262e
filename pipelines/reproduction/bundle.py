"""A run in one file, from which it can be made again where nothing else of it is.

    bundle.json    what it is, and the SHA-256 of every other member
    record/        what the run recorded: config, params, manifest, environment, packages, diff, summary, all its figures, and
                   the first steps of its flight record, the golden losses
    source/        the source tree that trained it, uncommitted changes applied, with its lock
    data/<n>/      the files of its data's source, where they are small; else they are known by fingerprint and origin
    weights/0/     those of the weights that it started from, where they are small and no card names them

Equal runs give equal bytes: members are in order, and have no times and no owners. No passwords are in it.
"""

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.outside import printable, redacted
from pipelines.system import durable
from pipelines.usage import UsageError

FORMAT = 1
INDEX = "bundle.json"
FIGURES = "metrics.json"
GOLDEN_STEPS = 100  # of the flight record
MOST_DATA = 64 * 2**20  # bytes of a source that are taken whole
# What of a source tree trains: the rest is tests and pages.
TREE = (
    "conf",
    "pipelines",
    "tasks",
    "LICENSE",
    "Makefile",
    "README.md",
    "bootstrap.lock",
    "pyproject.toml",
    "requirements.lock",
)
LATER = ("level", "repeats", "mlflow_run_id")  # what a summary gains after the run

Members = dict[str, bytes]


@dataclass(frozen=True)
class Bundle:
    """A bundle as it was laid out.

    Attributes:
        texts: what the run recorded, by file name.
        metrics: every figure: name, then step.
        names: of the places of its data below `folder`, by the path that each had; empty: they are not in it.
        weights: likewise of the weights that it started from.
    """

    folder: Path
    texts: dict[str, str]
    metrics: dict[str, dict[int, float]]
    names: dict[str, str]
    weights: str = ""

    @property
    def tree(self) -> Path:
        """The source tree."""
        return self.folder / "source"


def record_members(texts: Mapping[str, str], metrics: Mapping[str, Mapping[int, float]]) -> Members:
    """What a run recorded, as members.

    Raises:
        UsageError: its uncommitted changes hold what looks like a password.
    """
    members = {}
    for name, text in texts.items():
        if name == "diff.patch":
            _refuse_secrets(text)
        if name == "flight.jsonl":
            text = "".join(text.splitlines(keepends=True)[:GOLDEN_STEPS])
        if name == "summary.json":
            text = _as_it_ended(text)
        members[f"record/{name}"] = redacted(text).encode("utf-8", "surrogateescape")
    figures = json.dumps(metrics, sort_keys=True)
    members[f"record/{FIGURES}"] = figures.encode()
    return members


def tree_members(tree: Path) -> Members:
    """What of a source tree trains, as members."""
    members = {}
    for name in TREE:
        for path in sorted([tree / name, *(tree / name).rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                members[f"source/{path.relative_to(tree)}"] = path.read_bytes()
    return members


def data_members(
    by_place: Mapping[str, Mapping[str, str | Path]], folder: str = "data"
) -> tuple[Members, dict[str, str]]:
    """The files of a source as members, and the name of each place; both empty where they are too large."""
    sizes = 0
    for files in by_place.values():
        sizes += sum(Path(path).stat().st_size for path in files.values())
    if sizes > MOST_DATA:
        return {}, {}
    members: Members = {}
    names = {}
    for number, (place, files) in enumerate(sorted(by_place.items())):
        names[place] = f"{folder}/{number}/{Path(place).name}"
        for name, path in files.items():
            inside = f"{names[place]}/{name}" if name else names[place]
            members[inside] = Path(path).read_bytes()
    return members, names


def write(file: Path, members: Members, described: Mapping[str, Any]) -> str:
    """Writes a bundle, whole or not at all; returns its SHA-256.

    Args:
        described: what `bundle.json` says beside the digests.
    """
    digests = {name: hashlib.sha256(members[name]).hexdigest() for name in sorted(members)}
    index = json.dumps({"format": FORMAT, **described, "members": digests}, indent=1) + "\n"
    packed = io.BytesIO()
    with (
        gzip.GzipFile(
            filename="",
            mode="wb",
            fileobj=packed,
            mtime=0,
        ) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        _add(archive, INDEX, index.encode())
        for name in digests:
            _add(archive, name, members[name])
    file.parent.mkdir(parents=True, exist_ok=True)
    durable.write_whole(file, packed.getvalue())
    return hashlib.sha256(packed.getvalue()).hexdigest()


@contextmanager
def unpacked(file: Path) -> Iterator[Bundle]:
    """Lays a bundle out in a folder that is removed on leaving.

    Raises:
        UsageError: it is no bundle, or damaged.
    """
    with tempfile.TemporaryDirectory(prefix="trellis-bundle-") as parent:
        folder = Path(parent)
        try:
            with tarfile.open(file, mode="r:gz") as archive:
                archive.extractall(folder, filter="data")
            index = json.loads((folder / INDEX).read_text())
            digests = index["members"]
            names = index["data"]["names"]
            weights = index.get("weights", "")
        except FileNotFoundError:
            raise UsageError(f"bundle: there is no file {file}, or it is no bundle") from None
        except (OSError, EOFError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"bundle: {file} is no bundle: {printable(error, 200)}") from None
        _check(folder, digests, file)
        texts = {}
        for name in digests:
            if name.startswith("record/"):
                texts[name.removeprefix("record/")] = durable.read_text(folder / name)
        metrics = json.loads(texts.pop(FIGURES))
        yield Bundle(
            folder,
            texts,
            _by_step(metrics),
            names,
            weights,
        )


def golden(texts: Mapping[str, str], again: Mapping[str, str]) -> str:
    """Whether the first steps of a run made again gave the golden losses, in a line."""
    before = _losses(texts)
    after = _losses(again)
    for step, loss in before.items():
        if after.get(step) != loss:
            return f"golden losses: differ first at step {step}: {loss} -> {after.get(step)}"
    return f"golden losses: all {len(before)} equal" if before else "golden losses: none recorded"


def with_its_code(again: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, str]:
    """The texts of a run that the source tree of a bundle trained, where git knows nothing, with that tree's commit."""
    environment = json.loads(again["environment.json"])
    environment["git"] = json.loads(texts["environment.json"])["git"]
    return {
        **again,
        "environment.json": json.dumps(environment),
        "diff.patch": texts.get("diff.patch", ""),
    }


def _losses(texts: Mapping[str, str]) -> dict[int, Any]:
    losses = {}
    for line in texts.get("flight.jsonl", "").splitlines():
        entry = json.loads(line)
        if "loss" in entry:
            losses[entry["step"]] = entry["loss"]
    return losses


def _by_step(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    """Figures as they were: JSON has no keys but words."""
    figures = {}
    for name, series in metrics.items():
        figures[name] = {int(step): value for step, value in series.items()}
    return figures


def _as_it_ended(summary: str) -> str:
    """A summary without what it gained later: the bundle of a run does not change with it."""
    document = json.loads(summary)
    kept = {name: document[name] for name in document if name not in LATER}
    return json.dumps(kept, indent=2) + "\n"


def _refuse_secrets(diff: str) -> None:
    for number, line in enumerate(diff.splitlines(), start=1):
        if line.startswith("+") and redacted(line) != line:
            raise UsageError(
                f"diff.patch, line {number}: the uncommitted changes hold what looks like a password or token "
                f"({printable(redacted(line))}); take it out of the source, and train again"
            )


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o644
    archive.addfile(member, io.BytesIO(content))


def _check(folder: Path, digests: Mapping[str, str], file: Path) -> None:
    for name, expected in digests.items():
        content = folder / name
        if not content.is_file() or hashlib.sha256(content.read_bytes()).hexdigest() != expected:
            raise UsageError(f"bundle: {file}: {printable(name)} is damaged; fetch it again")
