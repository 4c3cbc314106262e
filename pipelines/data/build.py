"""One build: list the source, let Beam write the shards that are not there yet, check, and write the manifest last."""

import errno
import functools
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

from etils import epath

from pipelines.data import (
    checks,
    content,
    dask_workers,
    description,
    earlier,
    encoders,
    files,
    images,
    importing_beam,
    index,
    lookup,
    manifest,
    repeats,
    shards,
    sources,
    summary,
)
from pipelines.data.checks import Checks
from pipelines.data.description import Commission, Origin
from pipelines.data.keys import is_text
from pipelines.data.listing import Listing, Request
from pipelines.data.manifest import Manifest
from pipelines.data.progress import Progress
from pipelines.data.readback import Readback, Undecodable, decoded_before
from pipelines.data.shards import Job, Position
from pipelines.data.summary import Summary
from pipelines.outside import printable, quoted
from pipelines.system import durable
from pipelines.system.processes import cores
from pipelines.usage import UsageError

# Errors that are shown in one line, wherever a build met them.
STOPPED = re.compile(rf"[^\n]*(?:{lookup.CHANGED}|{shards.OTHERWISE})[^\n]*")
OUT_OF_REACH = re.compile(r"\w+://[^\n]*: cannot be fetched: [^\n]*")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(commission: Commission) -> Manifest:
    """Builds a data set in its folder.

    Raises:
        UsageError: the source is unfit, too much was rejected, or the disk is full.
    """
    dataset, task, found = commission.dataset, commission.task, commission.found
    source = sources.load(dataset.source)
    if dataset.task not in source.FACTS.tasks:
        gives = " and ".join(source.FACTS.tasks)
        raise UsageError(f"dataset.source: {dataset.source} gives {gives}, not {dataset.task}")
    images.check_treatments(dataset.convert)
    begin(commission.target)
    asked = Request(
        dataset,
        found.places,
        found.digests,
        parse=task.parse,
        unfit=found.unfit,
    )
    with dask_workers.importing(commission.runner):
        return _built(commission, repeats.listed(source.listing(asked), dataset))


def _built(commission: Commission, listing: Listing) -> Manifest:
    """Builds what is listed."""
    dataset, task, found = commission.dataset, commission.task, commission.found
    target = commission.target
    _check_labels(listing.labels)
    with Readback(dataset, decoded_before(target), task) as readback:
        with _explained(target):
            request = Request(
                dataset,
                found.places,
                {},
                listing.shared,
                task.parse,
            )
            job = _job(target, task, listing, request)
            origin = Origin(commission, listing, job.index)
            summaries = _written(job, origin, readback)
        built = description.describe(origin, summaries)
        description.write_rejects(target, job.index, summaries)
        manifest.check_rejects(built, dataset.max_reject_fraction)
        readback.check(built)
    finish(
        target,
        built,
        summaries,
        readback.known,
    )
    return built


def begin(target: epath.Path) -> None:
    """Makes the folder of a data set, which has no manifest until it is whole."""
    checks.place(target, "").mkdir(parents=True, exist_ok=True)
    (target / manifest.FILE).unlink(missing_ok=True)


def _check_labels(labels: tuple[str, ...]) -> None:
    for label in labels:
        if not is_text(label):
            says = f"class name {quoted(label)} is no text"
            raise UsageError(f"{says}; rename the folder or the class to UTF-8")


def _job(target: epath.Path, task: ModuleType, listing: Listing, request: Request) -> Job:
    """Lists all examples, and says which shards have to be written."""
    dataset = request.dataset
    source = sources.load(dataset.source)
    shaped_by = [content.recipe(dataset, task.VERSION), listing.labels, listing.has_masks]
    listed = index.write(
        str(target / "index"),
        listing.items,
        dataset.shards,
        content.digest(shaped_by),
        functools.partial(sources.objects_of, source, request=request),
    )
    _tell_ballast(listing.tally.ballast)
    return Job(
        folder=str(target),
        index=listed,
        source=dataset.source,
        request=request,
        encode=task.encode,
        encoders=encoders.used(dataset),
        shards=_missing(target, listed.shards),
        undecodable=checks.undecodable(target),
    )


def _tell_ballast(names: list[str]) -> None:
    if not names:
        return
    first = ", ".join(printable(name) for name in sorted(names)[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    print(
        f"data: {len(names)} files are no images by name and were left aside: {first}{more}",
        flush=True,
    )


def _written(job: Job, origin: Origin, readback: Readback) -> list[Summary]:
    """Writes the shards of a build, and those again that have images which TensorFlow cannot decode."""
    summaries = _write(job, origin)
    refused = readback.undecodable(description.describe(origin, summaries))
    if not refused:
        return summaries
    summaries = _write(_without(refused, job, origin.commission.target), origin)
    refused = readback.undecodable(description.describe(origin, summaries))
    if refused:
        raise RuntimeError(f"{refused[0]} was to be left out")
    return summaries


def _write(job: Job, origin: Origin) -> list[Summary]:
    target = origin.commission.target
    if job.shards:
        with Progress(target, job.index, job.shards):
            job = replace(job, shards=_left(job, target))
            if job.shards:
                _write_with_beam(job, origin.commission.runner)
    summaries = [_summary(target, shard) for shard in sorted(job.index.shards)]
    description.require_all(
        job.source,
        origin.listing,
        job.index,
        summaries,
    )
    return summaries


def _write_with_beam(job: Job, runner: dict[str, Any]) -> None:
    with importing_beam():
        from pipelines.data import records  # Beam: seconds, warnings.

    records.write(job, runner)


def _left(job: Job, target: epath.Path) -> tuple[str, ...]:
    """Writes the shards of which an earlier one has nearly all records; returns those that are left.

    In this process, whatever the runner: nearly all of it is copied, and a data set's folder that is not remote lies where this
    machine too sees it, which has listed the source and writes the manifest.
    """
    finished = earlier.builds(target)
    # What TensorFlow cannot decode may be among the earlier records.
    if job.undecodable or not finished or files.is_remote(job.folder):
        return job.shards
    located: dict[str, list[Position]] = {}
    for split in job.index.examples:
        for shard, position in shards.positions((split, 0, 1), job):
            located.setdefault(shard, []).append(position)
    renew = functools.partial(_renewed, job=job, finished=finished)
    with ThreadPoolExecutor(cores()) as pool:
        done = dict(zip(located, pool.map(renew, located.items()), strict=True))
    renewed = sum(done.values())
    if renewed:
        print(f"data: {renewed} shards take most of their records from earlier ones", flush=True)
    return tuple(shard for shard in job.shards if not done[shard])


def _renewed(
    grouped: tuple[str, list[Position]],
    job: Job,
    finished: Mapping[epath.Path, earlier.Summaries],
) -> bool:
    """Writes a shard if an earlier one, which has nearly all of its records, is whole."""
    try:
        with earlier.opened(
            grouped[0],
            shards.heads(grouped, job),
            job.index.recipe,
            finished,
        ) as found:
            if found:
                shards.write(grouped, job, found)
            return found is not None
    except earlier.Damaged:
        return False


def _summary(target: epath.Path, shard: str) -> Summary:
    counted = summary.read(target, shard)
    if counted is None:
        raise RuntimeError(f"the runner reported success and {shard} was not written")
    return counted


def _without(refused: list[Undecodable], job: Job, target: epath.Path) -> Job:
    """The job of writing shards again without the images that TensorFlow cannot decode."""
    again = tuple(sorted({image.shard for image in refused}))
    print(
        f"data: TensorFlow cannot decode {len(refused)} images; "
        f"writing {len(again)} shards again without them",
        flush=True,
    )
    checks.add_undecodable(target, {image.sha256: image.reason for image in refused})
    for shard in again:
        summary.remove(target, shard)
    return replace(job, shards=again, undecodable=checks.undecodable(target))


def _missing(target: epath.Path, wanted: Mapping[str, str]) -> tuple[str, ...]:
    """Those of the shards, which come with the digest of their inputs, that have to be written."""
    finished = earlier.builds(target)
    waiting = []
    for shard, inputs in sorted(wanted.items()):
        if not earlier.is_kept(target, shard, inputs, finished):
            waiting.append(shard)
    kept = len(wanted) - len(waiting)
    if kept:
        print(
            f"data: {kept} of {len(wanted)} shards are as they were; writing {len(waiting)}",
            flush=True,
        )
    return tuple(waiting)


@contextmanager
def _explained(target: epath.Path) -> Iterator[None]:
    """Turns a full disk or a store out of reach, wherever it was met, into something the user can read."""
    try:
        yield
    except Exception as error:
        advice = _advice(str(error), target)
        if advice:
            raise UsageError(advice) from None
        raise


def _advice(error: str, target: epath.Path) -> str:
    """The message for an error that the user can correct; empty for others."""
    if stopped := STOPPED.search(error):
        return stopped.group()
    if lost := OUT_OF_REACH.search(error):
        return f"{lost.group()}\nrun the same command to resume; what is written is kept"
    for reason in map(os.strerror, DISK_FULL):
        if reason in error:
            free = shutil.disk_usage(target).free if "://" not in str(target) else 0
            return (
                f"{target}: {reason} ({free / 1e6:.0f} MB free); make room or choose another data_dir, "
                "then run the same command: what is written is kept"
            )
    return ""


def finish(target: epath.Path, built: Manifest, summaries: list[Summary], known: Checks) -> None:
    """The manifest last; then what only served the build goes."""
    known.stamps = manifest.stamps(built)
    checks.write(target, known)
    beside = checks.place(target, "")
    counts = {counted.file: vars(counted) for counted in summaries}
    durable.write_whole(target / summary.SHARDS, json.dumps(counts), beside)
    durable.write_whole(target / manifest.FILE, built.to_json(), beside)
    (target / "index").rmtree(missing_ok=True)
    _clear(target, {*counts, summary.SHARDS, manifest.FILE, manifest.REJECTS, checks.BESIDE})
    listed = {f"{shard}{ending}" for shard in counts for ending in manifest.LISTS}
    _clear(beside, {*listed, checks.CHECKS, checks.UNDECODABLE})


def _clear(folder: epath.Path, wanted: Collection[str]) -> None:
    for file in folder.iterdir():
        if file.name not in wanted:
            file.unlink()
