"""From a composed data set to records on disk: found where they are built, else built."""

import fcntl
import importlib.metadata
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import ModuleType

from etils import epath

from pipelines.config import Config, Dataset, UsageError, absolute
from pipelines.data import content, manifest
from pipelines.data.manifest import Manifest, Shard, Split

REJECTS = "rejects.jsonl"


def obtain(cfg: Config, task: ModuleType) -> Manifest:
    """The data set that `cfg.dataset` describes, built first where that has not been done.

    Args:
        task: module of `tasks`, whose `encode` writes a record.

    Raises:
        UsageError: the source is absent or unfit, or too much of it had to be rejected.
    """
    dataset = cfg.dataset
    if dataset is None:
        raise UsageError("no dataset; choose one with dataset=<name>, see: trellis list")
    if dataset.embedded:
        _generate(cfg.data_dir, dataset)
    folder = manifest.directory(cfg.data_dir, dataset, task.VERSION)
    with _alone(folder):
        built = manifest.load_if_built(folder)
        if built and not manifest.damaged(built):
            print(f"data: {_described(built)}")
            return built
        print(f"data: building {dataset.name} with the {cfg.runner.get('engine', 'local')} runner in {folder}", flush=True)
        built = _build(cfg, dataset, task, folder)
    print(f"data: wrote {_described(built)}")
    return built


def _described(built: Manifest) -> str:
    examples = " + ".join(f"{split.examples} {name}" for name, split in built.splits.items())
    rejected = f", {sum(built.rejects.values())} rejected (see {REJECTS})" if built.rejects else ""
    return f"{examples} examples, {len(built.labels)} classes{rejected} in {built.directory}"


def _generate(data_dir: str, dataset: Dataset) -> None:
    folder = content.embedded_folder(data_dir, dataset)
    with _alone(str(folder)):
        if folder.exists():
            return
        print(f"data: generating {dataset.embedded} in {folder}", flush=True)
        # Imports scikit-learn, which takes seconds and is needed once.
        from pipelines.data import embedded

        embedded.generate(str(dataset.embedded), folder, dataset.seed)


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


def _build(cfg: Config, dataset: Dataset, task: ModuleType, folder: str) -> Manifest:
    # Imports Beam, which takes seconds and complains about cloud libraries; nothing above needs it.
    logging.disable(logging.WARNING)
    from pipelines.data import index, records, sources

    logging.disable(logging.NOTSET)

    source = sources.load(dataset.source)
    if dataset.task not in source.TASKS:
        raise UsageError(f"dataset.source: {dataset.source} gives {' and '.join(source.TASKS)}, not {dataset.task}")
    digests = content.Digests(absolute(cfg.data_dir))
    places = content.locate(cfg.data_dir, dataset)
    contents = {field: {split: digests.of(place) for split, place in by_split.items()} for field, by_split in places.items()}
    request = sources.Request(dataset, places, contents)
    listing = source.listing(request)
    target = epath.Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / manifest.FILE).unlink(missing_ok=True)
    listed = index.write(str(target / "index"), listing.items, dataset.shards)
    index.require_examples(listed, dataset.name)
    whole = {name for name, inputs in listed.shards.items() if _written(target, name, inputs)}
    job = records.Job(folder, listed, dataset.source, request, task.encode, tuple(sorted(set(listed.shards) - whole)))
    if job.shards:
        records.write(job, cfg.runner)
    return _finish(target, dataset, task, listing, listed, contents)


def _written(target: epath.Path, name: str, inputs: str) -> bool:
    """Whether an interrupted build finished this shard from the same inputs."""
    summary = target / f"{name}.summary.json"
    if not summary.exists() or not (target / name).exists():
        return False
    known = json.loads(summary.read_text())
    return known["inputs"] == inputs and known["bytes"] == (target / name).stat().length


def _finish(target: epath.Path, dataset: Dataset, task: ModuleType, listing, listed, contents) -> Manifest:
    summaries = [json.loads((target / f"{name}.summary.json").read_text()) for name in sorted(listed.shards)]
    rejects = sorted({tuple(asdict(reject).values()) for reject in listed.rejects} | {tuple(reject) for summary in summaries for reject in summary["rejects"]})
    with (target / REJECTS).open("w") as lines:
        for split, file, record, code, advice, whole in rejects:
            lines.write(json.dumps({"split": split, "file": file, "record": record, "code": code, "advice": advice, "example": whole}) + "\n")
    splits = {}
    for name in sorted(listed.examples):
        shards = tuple(Shard(**{key: summary[key] for key in Shard.__dataclass_fields__}) for summary in summaries if summary["file"].startswith(f"{name}-"))
        splits[name] = Split(sum(shard.examples for shard in shards), shards)
    total = lambda key: dict(sorted(sum((Counter(summary[key]) for summary in summaries), Counter()).items()))
    written = sum(split.examples for split in splits.values())
    lost = [reject for reject in rejects if reject[5]]
    built = Manifest(
        dataset=dataset.name,
        fingerprint=target.name.rsplit("-", 1)[1],
        task=dataset.task,
        version=task.VERSION,
        labels=listing.labels,
        splits=splits,
        formats=tuple(total("formats")),
        has_masks=listing.has_masks,
        counts={"examples_written": written, "examples_rejected": len(lost), "objects_rejected": len(rejects) - len(lost), "boxes_clipped": sum(summary["clipped"] for summary in summaries)},
        classes={name: dict(sorted(sum((Counter(summary["classes"]) for summary in summaries if summary["file"].startswith(f"{name}-")), Counter()).items())) for name in splits},
        rejects=dict(sorted(Counter(reject[3] for reject in rejects).items())),
        image_sizes=total("image_sizes"),
        box_sizes=total("box_sizes"),
        source={"kind": dataset.source, "digests": {field: {split: content.digest(files) for split, files in by_split.items()} for field, by_split in contents.items()}},
        versions={name: importlib.metadata.version(name) for name in ("apache-beam", "trellis")},
        directory=str(target),
    )
    _limit(built, dataset)
    for name in listed.shards:
        (target / f"{name}.summary.json").unlink()
    (target / "index").rmtree()
    partial = target / f"{manifest.FILE}.partial"
    partial.write_text(built.to_json())
    partial.replace(target / manifest.FILE)
    return built


def _limit(built: Manifest, dataset: Dataset) -> None:
    examples = built.counts["examples_written"] + built.counts["examples_rejected"]
    share = built.counts["examples_rejected"] / examples
    if share > dataset.max_reject_fraction:
        reasons = ", ".join(f"{count} {code}" for code, count in Counter(built.rejects).most_common(5))
        raise UsageError(f"{share:.1%} of the examples were rejected, dataset.max_reject_fraction allows {dataset.max_reject_fraction:.1%}: {reasons}\neach of them: {built.directory}/{REJECTS}")
