"""What a process needs before it imports TensorFlow."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.config import Config


@contextmanager
def prepared(cfg: Config, folder: Path) -> Iterator[None]:
    """Gives the process a temporary folder of its own inside `folder`, and hides GPUs that the runtime does not use."""
    if not cfg.runtime.get("num_gpus") and cfg.runtime.get("distribution_strategy") != "tpu":
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("tmp-*"):  # By processes that were killed.
        if not _alive(left.name.split("-")[1]):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"tmp-{os.getpid()}-", dir=folder, ignore_cleanup_errors=True) as scratch:
        # TensorFlow leaves a file for every function it traces.
        os.environ["TMPDIR"] = tempfile.tempdir = scratch
        yield


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
