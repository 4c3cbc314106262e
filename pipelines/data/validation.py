"""Reads records back through Model Garden's own decoder and parser before a manifest says that they are there.

TensorFlow lives in a process of its own, started with the build, so that its import costs no time of its own.
"""

import json
import os
import subprocess
import sys
from typing import Any, Self

from pipelines.config import Dataset
from pipelines.data.manifest import Manifest
from pipelines.data.sources import Listing
from pipelines.usage import UsageError

MODES = ("none", "sample", "full")
SAMPLE = 4  # records of each shard
MODULE = "pipelines.data.consumer"


class Validation:
    """A consumer that waits for the records."""

    def __init__(self, dataset: Dataset, listing: Listing) -> None:
        if dataset.validate not in MODES:
            raise UsageError(f"dataset.validate: no mode {dataset.validate!r}; there are: {', '.join(MODES)}")
        self._dataset = dataset
        self._consumer: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        if self._dataset.validate != "none":
            environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            self._consumer = subprocess.Popen([sys.executable, "-m", MODULE], text=True, env=environment, **pipes)
        return self

    def __exit__(self, *_: object) -> None:
        if self._consumer and self._consumer.poll() is None:
            self._consumer.kill()
            self._consumer.communicate()

    def check(self, built: Manifest) -> None:
        """Waits for the consumer's word.

        Raises:
            UsageError: a record does not come through; it is named.
        """
        if self._consumer is None:
            return
        limit = 0 if self._dataset.validate == "full" else SAMPLE
        output, errors = self._consumer.communicate(json.dumps({"manifest": built.to_json(), "directory": built.directory, "limit": limit}))
        if self._consumer.returncode:
            raise RuntimeError(f"reading the records back failed:\n{errors[-3000:]}")
        problems = json.loads(output.splitlines()[-1])["problems"]
        if problems:
            raise UsageError("Model Garden cannot read the records as they should be:\n" + "\n".join(problems[:10]))
