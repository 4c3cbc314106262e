"""One build: list the source, let Beam write the shards that are not there yet, check, and write the manifest last."""

import errno
import functools
import importlib.metadata
import itertools
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any

from etils import epath

from pipelines.config import Dataset
from pipelines.data import (
    checks,
    content,
    encoders,
    images,
    index,
    keys,
    lookup,
    manifest,
    records,
    sources,
    summary,
)
from pipelines.data.checks import Checks
from pipelines.data.example import Listing, Reject, Request
from pipelines.data.index import Index
from pipelines.data.manifest import Manifest, Shard, Split
from pipelines.data.progress import Progress
from pipelines.data.readback import Readback, Undecodable, decoded_before
from pipelines.data.summary import Summary
from pipelines.outside import printable, redacted
from pipelines.system import durable
from pipelines.usage import UsageError

LONGEST = 1000  # characters of one field of a reject
SHARDS = "shards.json"  # the summaries of a finished build: a later one takes over the shards that did not change


def run(
    dataset: Dataset, task: ModuleType, folder: str, *, found: content.Found, runner: dict[str, Any]
) -> Manifest:
    """Builds a data set in its folder.

    Raises:
        UsageError: the source is unfit, too much was rejected, or the disk is full.
    """
    source = sources.load(dataset.source)
    if dataset.task not in source.FACTS.tasks:
        raise UsageError(
            f"dataset.source: {dataset.source} gives {' and '.join(source.FACTS.tasks)}, not {dataset.task}"
        )
    images.check_treatments(dataset.convert)
    target = epath.Path(folder)
    begin(target)
    listing = source.listing(
        Request(dataset, found.places, found.digests, parse=task.parse, unfit=found.unfit)
    )
    _check_labels(listing.labels)
    request = Request(dataset, found.places, {}, listing.shared, task.parse)  # a worker's
    recipe = content.digest(
        [content.recipe(dataset, task.VERSION), listing.labels, listing.has_masks]
    )
    with Readback(dataset, decoded_before(target)) as readback:
        try:
            objects = functools.partial(sources.objects_of, source, request=request)
            listed = index.write(
                str(target / "index"), listing.items, dataset.shards, recipe, objects
            )
            _tell_ballast(listing.tally.ballast)
            waiting, left_out = _missing(target, listed), checks.undecodable(target)
            job = records.Job(
                folder,
                listed,
                dataset.source,
                request,
                task.encode,
                encoders.used(dataset),
                waiting,
                left_out,
            )
            _write(job, target, runner)
            summaries = [_summary(target, shard) for shard in sorted(listed.shards)]
            require_all(dataset.source, listing, listed, summaries)
            described = functools.partial(
                describe, dataset, task, target, listing=listing, listed=listed, found=found
            )
            if refused := readback.undecodable(described(summaries=summaries)):
                _write(_without(refused, job, target), target, runner)
                summaries = [_summary(target, shard) for shard in sorted(listed.shards)]
                require_all(dataset.source, listing, listed, summaries)
                if refused := readback.undecodable(described(summaries=summaries)):
                    raise RuntimeError(f"{refused[0]} was to be left out")
        except Exception as error:
            _explain(error, target)
            raise
        built = described(summaries=summaries)
        write_rejects(target, listed, summaries)
        manifest.check_rejects(built, dataset.max_reject_fraction)
        readback.check(built)
    finish(target, built, summaries, readback.known)
    return built


def _missing(target: epath.Path, listed: Index) -> tuple[str, ...]:
    """Shards that have to be written."""
    earlier = _earlier(target)
    waiting = tuple(
        shard
        for shard in sorted(listed.shards)
        if not _kept(target, shard, listed.shards[shard], earlier)
    )
    if kept := len(listed.shards) - len(waiting):
        print(
            f"data: {kept} of {len(listed.shards)} shards are as they were; writing {len(waiting)}",
            flush=True,
        )
    return waiting


def _write(job: records.Job, target: epath.Path, runner: dict[str, Any]) -> None:
    if job.shards:
        with Progress(target, job.index, job.shards):
            records.write(job, runner)


def _without(refused: list[Undecodable], job: records.Job, target: epath.Path) -> records.Job:
    """The job of writing shards again without the images that TensorFlow cannot decode."""
    shards = tuple(sorted({image.shard for image in refused}))
    print(
        f"data: TensorFlow cannot decode {len(refused)} images; writing {len(shards)} shards again without them",
        flush=True,
    )
    checks.add_undecodable(target, {image.sha256: image.reason for image in refused})
    for shard in shards:
        summary.remove(target, shard)
    return replace(job, shards=shards, undecodable=checks.undecodable(target))


def begin(target: epath.Path) -> None:
    """Makes the folder of a data set, which has no manifest until it is whole."""
    checks.place(target, "").mkdir(parents=True, exist_ok=True)
    (target / manifest.FILE).unlink(missing_ok=True)


def _earlier(target: epath.Path) -> dict[epath.Path, dict[str, dict[str, Any]]]:
    """Summaries of the shards of finished builds, this one's own first, by their folders."""
    name = target.name.rsplit("-", 1)[0]
    folders = sorted(
        (file.parent for file in target.parent.glob(f"{name}-*/{SHARDS}")),
        key=lambda folder: (folder != target, folder),
    )
    return {folder: json.loads((folder / SHARDS).read_text()) for folder in folders}


def _kept(
    target: epath.Path,
    shard: str,
    inputs: str,
    earlier: Mapping[epath.Path, Mapping[str, dict[str, Any]]],
) -> bool:
    """Whether the shard is there: from this build interrupted or finished, or taken over from one of other content."""
    known = summary.read(target, shard)
    if known and known.inputs == inputs and _whole(target, known):
        return True
    for folder, shards in earlier.items():
        entry = shards.get(shard)
        if entry and entry["inputs"] == inputs and _taken_over(folder, target, Summary(**entry)):
            return True
    return False


def _whole(folder: epath.Path, known: Summary) -> bool:
    """Whether a shard has the SHA-256 that it was written with; a build trusts no stamp."""
    return manifest.intact(folder, _shard(known), {})


def _taken_over(old: epath.Path, new: epath.Path, known: Summary) -> bool:
    if not _whole(old, known):
        return False
    if old != new:
        beside = checks.place(new, "")
        _link(old / known.file, new / known.file, beside)
        _link(
            manifest.lengths_file(old / known.file), manifest.lengths_file(new / known.file), beside
        )
    summary.write(known, new)
    return True


def _link(old: epath.Path, new: epath.Path, beside: epath.Path) -> None:
    partial = durable.partial(new, beside)
    partial.unlink(missing_ok=True)
    try:
        os.link(old, partial)
    except OSError:
        old.copy(partial, overwrite=True)
    partial.replace(new)


def _explain(error: BaseException, target: epath.Path) -> None:
    """Turns a full disk or a store out of reach, wherever it was met, into something the user can read."""
    if stopped := re.search(rf"[^\n]*(?:{lookup.CHANGED}|{records.OTHERWISE})[^\n]*", str(error)):
        raise UsageError(stopped.group()) from None
    if lost := re.search(r"\w+://[^\n]*: cannot be fetched: [^\n]*", str(error)):
        raise UsageError(
            f"{lost.group()}\nrun the same command to go on: what is written is kept"
        ) from None
    names = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
    reason = next((name for name in names if name in str(error)), None)
    if reason:
        free = shutil.disk_usage(target).free if "://" not in str(target) else 0
        raise UsageError(
            f"{target}: {reason} ({free / 1e6:.0f} MB free); make room or choose another data_dir, then run the same command: what is written is kept"
        ) from None


def _summary(target: epath.Path, shard: str) -> Summary:
    found = summary.read(target, shard)
    if found is None:
        raise RuntimeError(f"the runner reported success and {shard} was not written")
    return found


def require_all(source: str, listing: Listing, listed: Index, summaries: list[Summary]) -> None:
    """Checks that all that was read was written or rejected: examples and objects, counted apart from each other."""
    rejects = rejects_of(listed, summaries)
    counts = _counts(listing, listed, summaries, rejects)
    lost = [reject for reject in rejects if reject.whole]
    ends = {
        "examples": (counts["examples_read"], counts["examples_written"] + len(lost)),
        "indexed examples": (
            sum(listed.examples.values()),
            sum(one.examples_read for one in summaries),
        ),
        "objects": (
            counts["objects_read"],
            counts["objects_written"]
            + counts["objects_rejected"]
            + counts["objects_of_rejected_examples"],
        ),
    }
    for kind, (read, ended) in ends.items():
        if read != ended:
            raise RuntimeError(
                f"internal error in source {source}: {read} {kind} were read, {ended} were written or rejected; "
                "nothing is built from them. Please report this, with the data set if you can"
            )


def rejects_of(listed: Index, summaries: list[Summary]) -> list[Reject]:
    return sorted(
        [*listed.rejects, *(Reject(*entry) for one in summaries for entry in one.rejects)]
    )


def _cut(reject: Reject) -> dict[str, Any]:
    """What a line of the rejects says; names that data made endless are cut, passwords of addresses among them hidden."""
    return {
        name: redacted(value)[:LONGEST] if isinstance(value, str) else value
        for name, value in asdict(reject).items()
    }


def write_rejects(target: epath.Path, listed: Index, summaries: list[Summary]) -> None:
    with (target / manifest.REJECTS).open("w") as lines:
        for reject in rejects_of(listed, summaries):
            lines.write(json.dumps(_cut(reject)) + "\n")


def describe(
    dataset: Dataset,
    task: ModuleType,
    target: epath.Path,
    *,
    listing: Listing,
    listed: Index,
    summaries: list[Summary],
    found: content.Found,
) -> Manifest:
    by_split = {
        split: [one for one in summaries if index.split_of(one.file) == split]
        for split in listed.examples
    }
    splits = {
        split: Split(sum(one.examples for one in of), tuple(_shard(one) for one in of))
        for split, of in by_split.items()
    }
    rejects = rejects_of(listed, summaries)
    return Manifest(
        dataset=dataset.name,
        fingerprint=target.name.rsplit("-", 1)[1],
        task=dataset.task,
        version=task.VERSION,
        labels=listing.labels,
        splits=splits,
        formats=tuple(summary.total(summaries, "formats")),
        has_masks=listing.has_masks,
        counts=_counts(listing, listed, summaries, rejects),
        classes={split: summary.total(of, "classes") for split, of in by_split.items()},
        rejects=dict(sorted(Counter(reject.code for reject in rejects).items())),
        image_sizes=summary.total(summaries, "image_sizes"),
        box_sizes=summary.total(summaries, "box_sizes"),
        warnings=_warnings(dataset.source, listing.labels, by_split),
        source={
            "kind": dataset.source,
            "digests": {
                field: {split: content.digest(files) for split, files in by.items()}
                for field, by in found.digests.items()
            },
        },
        encoders=encoders.used(dataset),
        versions={name: importlib.metadata.version(name) for name in ("trellis", "apache-beam")}
        | encoders.libraries(),
        directory=str(target),
    )


def _shard(one: Summary) -> Shard:
    return Shard(one.file, one.examples, one.bytes, one.sha256, one.inputs)


def _counts(
    listing: Listing, listed: Index, summaries: list[Summary], rejects: list[Reject]
) -> dict[str, int]:
    lost = [reject for reject in rejects if reject.whole]
    objects = listing.tally.objects
    if objects is None:  # Read on workers, but for those that went with what the listing rejected.
        objects = sum(one.objects_read for one in summaries) + sum(
            reject.objects for reject in listed.rejects
        )
    return {
        "examples_read": listing.tally.examples,
        "examples_written": sum(one.examples for one in summaries),
        "examples_rejected": len(lost),
        "objects_read": objects,
        "objects_written": sum(one.objects for one in summaries),
        "objects_rejected": len(rejects) - len(lost),
        "objects_of_rejected_examples": sum(reject.objects for reject in lost),
        "boxes_clipped": sum(one.clipped for one in summaries),
        "ids_hashed": sum(one.ids_hashed for one in summaries),
        "ballast_files": len(listing.tally.ballast),
    }


def _check_labels(labels: tuple[str, ...]) -> None:
    for label in labels:
        if not keys.is_text(label):
            raise UsageError(
                f"class name {printable(label)!r} is no text; rename the folder or the class to UTF-8"
            )


def _tell_ballast(names: list[str]) -> None:
    if names:
        first = ", ".join(printable(name) for name in sorted(names)[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        print(
            f"data: {len(names)} files are no images by name and were left aside: {first}{more}",
            flush=True,
        )


def _warnings(
    source: str, labels: tuple[str, ...], by_split: Mapping[str, list[Summary]]
) -> tuple[str, ...]:
    found = []
    for split, summaries in by_split.items():
        classes = summary.total(summaries, "classes")
        missing = [
            printable(label)
            for label in labels
            if not classes.get(label) and not label.startswith("(no category")
        ]
        if missing:
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            found.append(f"{split} has nothing of class {', '.join(missing[:10])}{more}")
        counts = [count for count in classes.values() if count]
        if split == "train" and counts and max(counts) > 100 * min(counts):
            rarest, commonest = (
                min(classes, key=classes.__getitem__),
                max(classes, key=classes.__getitem__),
            )
            sides = f"{classes[commonest]} of {printable(commonest)}, {classes[rarest]} of {printable(rarest)}"
            found.append(f"train is out of balance: {sides}")
    hashed = sum(one.ids_hashed for summaries in by_split.values() for one in summaries)
    if hashed and sources.facts(source).numbered:
        found.append(
            f"{hashed} image ids are no whole numbers of up to 15 digits; image/source_id has a number made from each instead"
        )
    contents = {
        split: {digest for one in summaries for digest in one.contents}
        for split, summaries in by_split.items()
    }
    for one, other in itertools.combinations(sorted(contents), 2):
        both = len(contents[one] & contents[other])
        if both:
            found.append(
                f"{both} images are in {one} and in {other}: what is measured is partly memory"
            )
    return tuple(found)


def finish(target: epath.Path, built: Manifest, summaries: list[Summary], known: Checks) -> None:
    """The manifest last; then what only served the build goes."""
    known.stamps = manifest.stamps(built)
    checks.write(target, known)
    for name, text in (
        (SHARDS, json.dumps({one.file: vars(one) for one in summaries})),
        (manifest.FILE, built.to_json()),
    ):
        durable.write_whole(target / name, text, checks.place(target, ""))
    (target / "index").rmtree(missing_ok=True)
    shards = {one.file for one in summaries}
    _clear(target, shards | {SHARDS, manifest.FILE, manifest.REJECTS, checks.BESIDE})
    _clear(
        checks.place(target, ""),
        {f"{shard}{manifest.LENGTHS}" for shard in shards} | {checks.CHECKS, checks.UNDECODABLE},
    )


def _clear(folder: epath.Path, wanted: Collection[str]) -> None:
    for file in folder.iterdir():
        if file.name not in wanted:
            file.unlink()
