"""Reads records back through Model Garden's own decoder and parser before a manifest says that they are there.

TensorFlow lives in a process of its own, started with the build, so that its import costs no time of its own. It is asked
and answers in lines of JSON.
"""

import json
import subprocess
import tempfile
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
MODULE = "pipelines.data.consumer"
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


class Validation:
    """A consumer that waits for the records, as the data set asks for it.

    Attributes:
        known: how far the data set is checked; it grows with what is checked here.
    """

    def __init__(self, dataset: Dataset, known: Checks) -> None:
        if dataset.validate not in LEVELS:
            raise UsageError(
                f"dataset.validate: no mode {dataset.validate!r}; there are: {', '.join(LEVELS)}"
            )
        self.known = known
        self._asked = dataset.validate
        self._consumer: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None

    def __enter__(self) -> Self:
        if self._asked != "none":
            # A file, since nobody empties a pipe in between.
            self._errors = tempfile.TemporaryFile("w+")
            pipes: dict[str, Any] = {
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": self._errors,
            }
            command, environment = processes.this_tool(module=MODULE)
            self._consumer = subprocess.Popen(
                command, text=True, env={**environment, **ENVIRONMENT}, **pipes
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._consumer:
            self._consumer.kill()
            self._consumer.communicate()
        if self._errors:
            self._errors.close()

    def undecodable(self, built: Manifest) -> list[Undecodable]:
        """Has TensorFlow decode every image that it has not decoded yet, and returns those that it cannot."""
        if self._consumer is None:
            return []
        waiting = [shard for shard in _shards(built) if shard.sha256 not in self.known.decoded]
        found: list[Undecodable] = []
        for shard in waiting:
            answer = self._ask({"decode": _path(built, shard)})
            found += [Undecodable(shard.file, *entry) for entry in answer["undecodable"]]
        bad = {image.shard for image in found}
        self.known.decoded += [shard.sha256 for shard in waiting if shard.file not in bad]
        return found

    def check(self, built: Manifest) -> None:
        """Waits for the consumer's word on a sample of the records, or all of them.

        Raises:
            UsageError: a record does not come through; it is named.
        """
        self.known.decoded = sorted(
            {shard.sha256 for shard in _shards(built)} & set(self.known.decoded)
        )
        if self._consumer is None:
            return
        limit = 0 if self._asked == "full" else SAMPLE
        answer = self._ask({"check": built.to_json(), "directory": built.directory, "limit": limit})
        if answer["problems"]:
            raise UsageError(
                "\n".join(
                    [
                        "Model Garden cannot read the records as they should be:",
                        *answer["problems"][:10],
                    ]
                )
            )
        self.known.level = self._asked

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        consumer, errors = self._consumer, self._errors
        assert consumer and consumer.stdin and consumer.stdout and errors
        try:
            consumer.stdin.write(json.dumps(request) + "\n")
            consumer.stdin.flush()
        except BrokenPipeError:
            pass  # Its last words say why.
        answer = consumer.stdout.readline()
        if not answer:
            errors.seek(0)
            raise RuntimeError(f"reading the records back failed:\n{errors.read()[-3000:]}")
        return json.loads(answer)


def refuse_adopted(refused: list[Undecodable]) -> None:
    """Stops an adoption that would train on images which cannot be decoded: files that are not rewritten cannot leave one out.

    Raises:
        UsageError: there are any; the first are named.
    """
    if refused:
        shown = [
            f"{image.shard} record {image.record} ({image.file}): {image.reason}"
            for image in refused[:3]
        ]
        raise UsageError(
            "\n".join([f"TensorFlow cannot decode {len(refused)} images of the records:", *shown])
        )


def is_enough(dataset: Dataset, known: Checks) -> bool:
    """Whether data that were checked so far are checked as far as the data set asks."""
    return dataset.validate in LEVELS and LEVELS.index(known.level) >= LEVELS.index(
        dataset.validate
    )


def decoded_before(target: epath.Path) -> Checks:
    """What a build of a data set starts from: its shards' images may have been decoded under another fingerprint."""
    name = target.name.rsplit("-", 1)[0]
    folders = {
        file.parent.parent
        for file in target.parent.glob(f"{name}-*/{checks.BESIDE}/{checks.CHECKS}")
    }
    return Checks(
        decoded=sorted({sha256 for folder in folders for sha256 in checks.read(folder).decoded})
    )


def _shards(built: Manifest) -> list[Shard]:
    return [shard for split in built.splits.values() for shard in split.shards]


def _path(built: Manifest, shard: Shard) -> str:
    return f"{built.directory}/{shard.file}"
