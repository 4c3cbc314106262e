"""Reads records back through Model Garden's own decoder and parser before a manifest says that they are there.

TensorFlow runs in a second process, started with the build, so that its import costs no time of its own. It is asked
and answers in lines of JSON.
"""

import json
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Self

from etils import epath

from pipelines.config import Dataset
from pipelines.data import checks
from pipelines.data.checks import LEVELS, Checks
from pipelines.data.manifest import Manifest, Shard
from pipelines.system import processes
from pipelines.usage import UsageError

SAMPLE = 4  # records of each shard
READER = "pipelines.data.reading.reader"
ENVIRONMENT = {
    "TF_USE_LEGACY_KERAS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
}


@dataclass(frozen=True)
class Undecodable:
    """An image that TensorFlow cannot decode: where it was met, and why."""

    shard: str
    record: int
    file: str
    sha256: str
    reason: str


class Readback:
    """A reader that waits for the records, where the data set asks for one.

    Attributes:
        known: how far the data set is checked; it grows with what is checked here.
    """

    def __init__(self, dataset: Dataset, known: Checks) -> None:
        if dataset.validate not in LEVELS:
            levels = ", ".join(LEVELS)
            raise UsageError(f"dataset.validate: no mode {dataset.validate!r}; there are: {levels}")
        self.known = known
        self._level = dataset.validate
        self._reader: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None

    def __enter__(self) -> Self:
        if self._level == "none":
            return self
        command, environment = processes.this_tool(module=READER)
        # A file, since nobody empties a pipe meanwhile.
        self._errors = tempfile.TemporaryFile("w+")
        self._reader = subprocess.Popen(
            command,
            text=True,
            env={**environment, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader:
            self._reader.kill()
            self._reader.communicate()
        if self._errors:
            self._errors.close()

    def undecodable(self, built: Manifest) -> list[Undecodable]:
        """Has TensorFlow decode every image that it has not decoded yet, and returns those that it cannot."""
        if self._reader is None:
            return []
        waiting = [shard for shard in _shards(built) if shard.sha256 not in self.known.decoded]
        refused: list[Undecodable] = []
        for shard in waiting:
            answer = self._ask({"decode": f"{built.directory}/{shard.file}"})
            images = [Undecodable(shard.file, *entry) for entry in answer["undecodable"]]
            if not images:
                self.known.decoded.append(shard.sha256)
            refused += images
        return refused

    def check(self, built: Manifest) -> None:
        """Waits for the reader's word on a sample of the records, or all of them.

        Raises:
            UsageError: a record does not come through; it is named.
        """
        built_shards = {shard.sha256 for shard in _shards(built)}
        self.known.decoded = sorted(built_shards & set(self.known.decoded))
        if self._reader is None:
            return
        limit = 0 if self._level == "full" else SAMPLE
        answer = self._ask({"check": built.to_json(), "directory": built.directory, "limit": limit})
        if answer["problems"]:
            shown = "\n".join(answer["problems"][:10])
            raise UsageError(f"Model Garden cannot read the records as they should be:\n{shown}")
        self.known.level = self._level

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        reader, errors = self._reader, self._errors
        assert reader and reader.stdin and reader.stdout and errors
        with suppress(BrokenPipeError):  # Its last words say why.
            reader.stdin.write(json.dumps(request) + "\n")
            reader.stdin.flush()
        answer = reader.stdout.readline()
        if not answer:
            errors.seek(0)
            raise RuntimeError(f"reading the records back failed:\n{errors.read()[-3000:]}")
        return json.loads(answer)


def refuse_adopted(refused: list[Undecodable]) -> None:
    """Stops an adoption that would train on images which cannot be decoded: files that are not rewritten cannot leave one out.

    Raises:
        UsageError: there are any; the first are named.
    """
    if not refused:
        return
    lines = [f"TensorFlow cannot decode {len(refused)} images of the records:"]
    for image in refused[:3]:
        lines.append(f"{image.shard} record {image.record} ({image.file}): {image.reason}")
    raise UsageError("\n".join(lines))


def is_enough(dataset: Dataset, known: Checks) -> bool:
    """Whether data that were checked so far are checked as far as the data set asks."""
    if dataset.validate not in LEVELS:
        return False
    return LEVELS.index(known.level) >= LEVELS.index(dataset.validate)


def decoded_before(target: epath.Path) -> Checks:
    """What a build of a data set starts from: its shards' images may have been decoded under another fingerprint."""
    name = target.name.rsplit("-", 1)[0]
    decoded: set[str] = set()
    for file in target.parent.glob(f"{name}-*/{checks.BESIDE}/{checks.CHECKS}"):
        decoded |= set(checks.read(file.parent.parent).decoded)
    return Checks(decoded=sorted(decoded))


def _shards(built: Manifest) -> list[Shard]:
    return [shard for split in built.splits.values() for shard in split.shards]
