"""From a composed data set to records on disk: found where they are built, else built."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from etils import epath

from pipelines import config
from pipelines.config import Config, Dataset
from pipelines.data import (
    checks,
    content,
    files,
    importing_beam,
    locations,
    manifest,
    same_environment,
    sources,
)
from pipelines.data.description import Commission
from pipelines.data.manifest import Manifest
from pipelines.data.readback import Readback, Undecodable, is_enough, refuse_adopted
from pipelines.system import durable


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
    source = sources.load(dataset.source)
    if hasattr(source, "prepare"):
        locations.locate("", dataset)  # names what is missing
        source.prepare(dataset)
    found = content.find(cfg.data_dir, dataset)
    folder = manifest.directory(
        cfg.data_dir,
        dataset,
        task.VERSION,
        found,
    )
    with _alone(folder):
        built = manifest.load_if_built(folder)
        if built and _is_usable(built, dataset, task, thorough=cfg.verify):
            manifest.check_rejects(built, dataset.max_reject_fraction)
            print(f"data: {_described(built)}")
            return built
        engine = cfg.runner.get("engine", "local")
        print(f"data: building {dataset.name} with the {engine} runner in {folder}", flush=True)
        built = _builder(adopted=source.FACTS.adopted).run(
            Commission(dataset, task, epath.Path(folder), found, cfg.runner)
        )
    _tell(built)
    return built


def _builder(*, adopted: bool) -> ModuleType:
    """What builds a data set, imported only where there is something to build."""
    if not adopted:
        from pipelines.data import build  # NumPy and Pillow: tenths of a second.

        return build
    with importing_beam():
        from pipelines.data import adoption  # Beam: seconds, warnings.

    return adoption


def _tell(built: Manifest) -> None:
    print(f"data: wrote {_described(built)}")
    if clipped := built.counts.get("boxes_clipped"):
        print(f"data: {clipped} boxes reached over the edge of their image and were cut there")
    for line in manifest.describe_rejects(built):
        print(f"data: {line}")
    for warning in built.warnings:
        print(f"data: warning: {warning}")


def _is_usable(
    built: Manifest,
    dataset: Dataset,
    task: ModuleType,
    *,
    thorough: bool,
) -> bool:
    """Whether built data are whole, and checked as far as the data set asks; removes shards that must be written again."""
    folder = epath.Path(built.directory)
    damaged = manifest.damaged(built, thorough=thorough)
    for shard in damaged:
        print(f"data: {shard.file} is missing or damaged; writing it again")
        (folder / shard.file).unlink(missing_ok=True)
    if damaged:
        return False
    known = checks.read(folder)
    stamps = manifest.stamps(built)
    if not is_enough(dataset, known):
        refused = _check(built, dataset, known, task)
        for image in refused:
            record = f"{image.shard} record {image.record}"
            print(f"data: {record}: TensorFlow cannot decode the image ({image.reason})")
            (folder / image.shard).unlink(missing_ok=True)
        if refused:
            return False
    elif known.stamps == stamps:
        return True
    known.stamps = stamps
    checks.write(folder, known)
    return True


def _check(
    built: Manifest, dataset: Dataset, known: checks.Checks, task: ModuleType
) -> list[Undecodable]:
    """Reads back what no build has read back yet; returns the images that the shards must leave out."""
    print(
        f"data: checking the records of {built.directory} (dataset.validate={dataset.validate})",
        flush=True,
    )
    with Readback(dataset, known, task) as readback:
        refused = readback.undecodable(built)
        if refused and not sources.facts(dataset.source).adopted:
            reasons = {image.sha256: image.reason for image in refused}
            checks.add_undecodable(epath.Path(built.directory), reasons)
            return refused
        refuse_adopted(refused)
        readback.check(built)
    return []


def _described(built: Manifest) -> str:
    counts = [f"{split.examples} {name}" for name, split in built.splits.items()]
    examples = " + ".join(counts)
    rejected = ""
    if built.rejects:
        rejected = f", {sum(built.rejects.values())} rejected (see {manifest.REJECTS})"
    return f"{examples} examples, {len(built.labels)} classes{rejected} in {built.directory}"


def _generate(data_dir: str, dataset: Dataset) -> None:
    folder = locations.embedded_folder(data_dir, dataset)
    with _alone(str(folder)):
        if locations.is_whole(folder):
            return
        print(f"data: generating {dataset.embedded} in {folder}", flush=True)
        with same_environment():
            # Imports scikit-learn, which takes seconds and is needed once.
            from pipelines.data import embedded

        if not files.is_remote(str(folder)):
            embedded.generate(
                str(dataset.embedded),
                folder,
                dataset.seed,
            )
            return
        with tempfile.TemporaryDirectory() as local:
            generated = epath.Path(local, "generated")
            embedded.generate(
                str(dataset.embedded),
                generated,
                dataset.seed,
            )
            files.upload(str(generated), str(folder))
        (folder / locations.WHOLE).write_text("")


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Locks a local folder that may not exist yet; the kernel releases the lock however the process ends."""
    if "://" in folder:
        yield
        return
    path = Path(folder)

    def waiting() -> None:
        print(f"data: another process is building {folder}; waiting for it", flush=True)

    with durable.locked(path.with_name(f".{path.name}.lock"), waiting=waiting):
        yield
