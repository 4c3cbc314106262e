"""Reads records back before a manifest says that they are there.

Of ordinary pictures it is known without TensorFlow that it decodes them (`ordinary`); it is asked about the others. A sample of
what was built is read from the disk here; records of other tools, and all of them where all are asked for, go through Model
Garden's own decoder and parser. TensorFlow runs in a second process, which is asked and answers in lines of JSON.
"""

import itertools
import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import IO, Any, Self

from etils import epath

from pipelines.config import Dataset
from pipelines.data import checks, frames, sources, summary
from pipelines.data.checks import LEVELS, Checks
from pipelines.data.example import Rejected
from pipelines.data.manifest import Manifest
from pipelines.system import processes, tfrecord
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
    """What asks about the records, with a reader in another process where it needs one.

    Attributes:
        known: how far the data set is checked; it grows with what is checked here.
    """

    def __init__(self, dataset: Dataset, known: Checks, task: ModuleType) -> None:
        if dataset.validate not in LEVELS:
            levels = ", ".join(LEVELS)
            raise UsageError(f"dataset.validate: no mode {dataset.validate!r}; there are: {levels}")
        self.known = known
        self._task = task
        self._level = dataset.validate
        self._is_adopted = sources.facts(dataset.source).adopted
        # Shards about which nothing is open. All are where every record is to be read.
        self._decoded = set() if self._level == "full" else set(known.decoded)
        self._reader: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None

    def __enter__(self) -> Self:
        if self._level == "full" or (self._level == "sample" and self._is_adopted):
            self._start()  # Beside the build, so that its import costs no time of its own.
        return self

    def _start(self) -> None:
        command, environment = processes.this_tool(module=READER)
        # A file, since nobody empties a pipe meanwhile.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (it is kept open)
        self._reader = subprocess.Popen(
            command,
            text=True,
            env={**environment, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def __exit__(self, *_: object) -> None:
        if self._reader:
            self._reader.kill()
            self._reader.communicate()
        if self._errors:
            self._errors.close()

    def undecodable(self, built: Manifest) -> list[Undecodable]:
        """Has TensorFlow decode every image that may be refused, all where all are asked for; returns those that it cannot."""
        if self._level == "none":
            return []
        shards = built.shards()
        unusual = summary.unusual(epath.Path(built.directory), [shard.file for shard in shards])
        refused: list[Undecodable] = []
        for shard in shards:
            if shard.sha256 in self._decoded:
                continue
            numbers = None if self._level == "full" else unusual[shard.file]
            answer = self._refused(f"{built.directory}/{shard.file}", numbers)
            refusals = [Undecodable(shard.file, *entry) for entry in answer]
            if not refusals:
                self._decoded.add(shard.sha256)
            refused += refusals
        return refused

    def _refused(self, shard: str, numbers: list[int] | None) -> list[list[Any]]:
        """The reader's word on some records of a shard, or on all of them."""
        if numbers == []:
            return []
        return self._ask({"decode": shard, "numbers": numbers})["undecodable"]

    def check(self, built: Manifest) -> None:
        """Reads a sample of the records, or all of them.

        Raises:
            UsageError: a record does not come through; it is named.
        """
        built_shards = {shard.sha256 for shard in built.shards()}
        decoded = self._decoded | set(self.known.decoded)
        self.known.decoded = sorted(built_shards & decoded)
        if self._level == "none":
            return
        problems = self._problems(built)
        if problems:
            shown = "\n".join(problems[:10])
            raise UsageError(f"Model Garden cannot read the records as they should be:\n{shown}")
        self.known.level = self._level

    def _problems(self, built: Manifest) -> list[str]:
        if self._level == "sample" and not self._is_adopted:
            return list(_problems(built, self._task))
        limit = 0 if self._level == "full" else SAMPLE
        asked = {"check": built.to_json(), "directory": built.directory, "limit": limit}
        return self._ask(asked)["problems"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._reader is None:
            self._start()
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


def _problems(built: Manifest, task: ModuleType) -> Iterator[str]:
    """What is wrong with the first records of each shard, as they lie on the disk; found out without TensorFlow."""
    for shard in built.shards():
        file = epath.Path(built.directory) / shard.file
        numbered = 0
        try:
            with file.open("rb") as content:
                for record in itertools.islice(tfrecord.read(content), SAMPLE):
                    _check(record, built, task)
                    numbered += 1
        except (ValueError, Rejected) as error:
            yield f"{shard.file} record {numbered}: {error}"


def _check(serialized: bytes, built: Manifest, task: ModuleType) -> None:
    """Takes a record apart, and its masks.

    Raises:
        ValueError: its bytes are not those that were written.
        Rejected: something in it does not fit.
    """
    # NumPy and pycocotools: finding data needs neither.
    from pipelines.data import fit

    record = task.decode(serialized)
    if frames.digest(frames.pictures(record)) != record["sha256"]:
        raise ValueError("the image has another SHA-256 than the record says")
    pictures = fit.read(record, fit.Labels(built.labels, task.FIRST_LABEL))
    fit.mask_pixels(record, pictures[0], built.labels)
