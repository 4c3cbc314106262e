"""Where the file of a card lies: the local store, an installed package, an address; known by its SHA-256."""

import hashlib
import importlib.metadata
import urllib.error
import urllib.request
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
            raise UsageError(
                f"{place}: has SHA-256 {sha256}, the card {card.name} says {card.sha256}: it is another file or damaged; "
                f"remove it, then: trellis weights fetch={card.name}"
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
        if "url" not in source:
            troubles.append(f"  {_install(source)}")
            continue
        try:
            return _fetch(source["url"], card, folder(data_dir) / card.file)
        except (OSError, urllib.error.URLError) as error:
            troubles.append(f"  {source['url']} does not answer ({reason(error, 100)})")
    listed = "\n".join(troubles)
    raise UsageError(
        f"init: the weights {card.name} are not here:\n{listed}\n"
        f"or bring {card.file} (SHA-256 {card.sha256[:16]}…) and put it in {folder(data_dir)}/; "
        f"to start from random weights: INIT=scratch"
    )


def is_reachable(checkpoint: str) -> bool:
    """Whether a checkpoint in a public bucket (gs://…) answers."""
    address = checkpoint.replace("gs://", "https://storage.googleapis.com/", 1)
    request = urllib.request.Request(f"{address}.index", method="HEAD")
    try:
        return urllib.request.urlopen(request, timeout=5).status == 200
    except (urllib.error.URLError, TimeoutError):
        return False


def _install(source: Mapping[str, str]) -> str:
    package = source["package"]
    wanted = f"{package}=={source['version']}" if "version" in source else package
    return (
        f"package {package} is not installed: .venv/bin/uv pip install --no-deps "
        f"--python .venv/bin/python {wanted}"
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
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != card.sha256:
        raise UsageError(
            f"{address}: has SHA-256 {sha256}, the card {card.name} says {card.sha256}; nothing was kept"
        )
    durable.write_whole(file, content)
    return file
