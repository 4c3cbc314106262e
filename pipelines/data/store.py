"""From a composed data set to records on disk: found where they are built, else built."""

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from etils import epath

from pipelines import config
from pipelines.config import Config, Dataset
from pipelines.data import content, files, manifest, without_tables
from pipelines.data.manifest import Manifest


def obtain(cfg: Config, task: ModuleType) -> Manifest:
    """The data set that `cfg.dataset` describes, built first where that has not been done.

    Args:
        task: module of `tasks`, whose `encode` writes a record.

    Raises:
        UsageError: the source is absent or unfit, or too much of it had to be rejected.
    """
    dataset = config.given_dataset(cfg)
    if dataset.embedded:
        _generate(cfg.data_dir, dataset)
    if dataset.source == "tfds":
        _prepare(dataset)
    found = content.find(cfg.data_dir, dataset)
    folder = manifest.directory(cfg.data_dir, dataset, task.VERSION, found)
    with _alone(folder):
        built = manifest.load_if_built(folder)
        damaged = manifest.damaged(built) if built else []
        if built and not damaged:
            manifest.check_rejects(built, dataset.max_reject_fraction)
            print(f"data: {_described(built)}")
            return built
        for shard in damaged:
            print(f"data: {shard.file} is missing or damaged; writing it again")
            epath.Path(folder, shard.file).unlink(missing_ok=True)
        print(f"data: building {dataset.name} with the {cfg.runner.get('engine', 'local')} runner in {folder}", flush=True)
        logging.disable(logging.WARNING)
        with without_tables():
            from pipelines.data import adoption, build  # Beam: seconds, warnings.

        logging.disable(logging.NOTSET)
        room: ModuleType = adoption if dataset.source == "tfrecord" else build
        built = room.run(dataset, task, folder, found=found, runner=cfg.runner)
    print(f"data: wrote {_described(built)}")
    if clipped := built.counts.get("boxes_clipped"):
        print(f"data: {clipped} boxes reached over the edge of their image and were cut there")
    for line in (*manifest.describe_rejects(built), *(f"warning: {warning}" for warning in built.warnings)):
        print(f"data: {line}")
    return built


def _described(built: Manifest) -> str:
    examples = " + ".join(f"{split.examples} {name}" for name, split in built.splits.items())
    rejected = f", {sum(built.rejects.values())} rejected (see {manifest.REJECTS})" if built.rejects else ""
    return f"{examples} examples, {len(built.labels)} classes{rejected} in {built.directory}"


def _generate(data_dir: str, dataset: Dataset) -> None:
    folder = content.embedded_folder(data_dir, dataset)
    with _alone(str(folder)):
        if content.is_whole(folder):
            return
        print(f"data: generating {dataset.embedded} in {folder}", flush=True)
        # Imports scikit-learn, which takes seconds and is needed once.
        from pipelines.data import embedded

        if not files.is_remote(str(folder)):
            embedded.generate(str(dataset.embedded), folder, dataset.seed)
            return
        with tempfile.TemporaryDirectory() as local:
            embedded.generate(str(dataset.embedded), epath.Path(local, "generated"), dataset.seed)
            files.upload(f"{local}/generated", str(folder))
        (folder / content.WHOLE).write_text("")


def _prepare(dataset: Dataset) -> None:
    content.locate("", dataset)  # names what is missing
    folder = content.tfds_folder(dataset)
    if files.is_remote(str(folder)) or (folder / "dataset_info.json").exists():
        return
    print(f"data: preparing {dataset.builder} with TensorFlow Datasets in {folder}", flush=True)
    # Imports TensorFlow, which takes seconds and is needed once.
    from pipelines.data import preparation

    preparation.run(dataset, folder)


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Holds a lock on a local folder to be; the system releases it however the process ends."""
    if "://" in folder:
        yield
        return
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with open(os.path.join(os.path.dirname(folder), f".{os.path.basename(folder)}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"data: another process is building {folder}; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


