"""Adopts TFRecords that somebody else wrote: every record is read and checked, nothing is written again.

The data set's folder holds links to the files, and the lengths of their records. A record that does not fit stops the adoption: files that are not
rewritten cannot leave one out.
"""

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import apache_beam as beam
import numpy as np
from etils import epath

from pipelines.config import Dataset
from pipelines.data import (
    build,
    content,
    folders,
    images,
    index,
    manifest,
    masks,
    runners,
    summary,
)
from pipelines.data.example import Example, Listing, Rejected, Tally
from pipelines.data.images import Image
from pipelines.data.index import Index
from pipelines.data.manifest import Manifest
from pipelines.data.readback import Readback, decoded_before, refuse_adopted
from pipelines.data.summary import Summary
from pipelines.system import durable, tfrecord
from pipelines.usage import UsageError

SHOWN = 100  # rejects of one file that are written down


@dataclass(frozen=True)
class Adoption:
    """What every worker is told."""

    folder: str
    decode: Callable[[bytes], dict[str, Any]]
    labels: tuple[str, ...]  # empty: taken from the records
    first_label: int


def run(
    dataset: Dataset, task: ModuleType, folder: str, *, found: content.Found, runner: dict[str, Any]
) -> Manifest:
    """Scans the files and writes a manifest for them.

    Raises:
        UsageError: no files, files that are not local, or a record that does not fit the task.
    """
    target = epath.Path(folder)
    build.begin(target)
    files = dict(_linked(target, found))
    labels = tuple(str(label) for label in dataset.labels or ())
    if dataset.task == "segmentation" and not labels:
        raise UsageError(
            "dataset.labels: masks carry no names; write dataset.labels=[background,…] in the order of the classes"
        )
    listing = Listing(labels, False, ())
    with Readback(dataset, decoded_before(target)) as readback:
        _scan(Adoption(folder, task.decode, labels, task.FIRST_LABEL), files, runner)
        scanned = [summary.read(target, shard) for shard in sorted(files)]
        summaries = [one for one in scanned if one is not None]
        listed = Index(
            folder,
            files,
            {
                split: sum(one.examples for one in summaries if index.split_of(one.file) == split)
                for split in found.places["images"]
            },
        )
        build.write_rejects(target, listed, summaries)
        _refuse(summaries, target)
        listing, summaries = _named(labels, task.FIRST_LABEL, summaries)
        build.require_all(dataset.source, listing, listed, summaries)
        built = build.describe(
            dataset, task, target, listing=listing, listed=listed, summaries=summaries, found=found
        )
        refuse_adopted(readback.undecodable(built))
        readback.check(built)
    build.finish(target, built, summaries, readback.known)
    return built


def _linked(target: epath.Path, found: content.Found) -> Iterator[tuple[str, str]]:
    """(name of the link, digest of the file) for every file, by split."""
    for split, place in found.places["images"].items():
        if split not in ("train", "validation"):
            raise UsageError(
                "dataset.images: say which files are which: dataset.images={train:<folder or pattern>,validation:<folder or pattern>}"
            )
        for name, (_, advice) in found.unfit.get("images", {}).get(split, {}).items():
            raise UsageError(f"dataset.images.{split}: {folders.path_of(place, name)}: {advice}")
        files = found.digests["images"][split]
        if not files:
            raise UsageError(f"dataset.images.{split}: no files in {place}")
        for number, (name, digest) in enumerate(sorted(files.items())):
            link = target / index.shard_name(split, number, len(files))
            link.unlink(missing_ok=True)
            os.symlink(folders.path_of(place, name), link)
            yield link.name, digest


def _scan(adoption: Adoption, files: dict[str, str], runner: dict[str, Any]) -> None:
    with runners.pipeline(runner, shards=len(files)) as pipeline:
        (
            pipeline
            | "Name the files" >> beam.Create(sorted(files.items()), reshuffle=False)
            | "Scan each file" >> beam.Map(scan, adoption)
        )


def scan(named: tuple[str, str], adoption: Adoption) -> str:
    """Reads one file and writes the lengths of its records, and what is in it, beside its link."""
    shard, digest = named
    folder = epath.Path(adoption.folder)
    counted = Summary(
        file=shard, inputs=digest, sha256=digest, bytes=(folder / shard).stat().length
    )
    lengths = array("I")
    with (folder / shard).open("rb") as records:
        for number, serialized in enumerate(_framed(records, shard, counted)):
            lengths.append(len(serialized))
            example = Example(index.split_of(shard), str(number), shard, shard, "", {})
            objects = 0
            try:
                record = adoption.decode(serialized)
                objects = len(record.get("objects", ()))
                image = images.read(record["image"])
                _check(record, image, adoption)
                pixels = _check_masks(record, image, adoption)
            except (ValueError, Rejected) as error:
                code, advice = (
                    (error.code, error.advice)
                    if isinstance(error, Rejected)
                    else ("record_malformed", str(error))
                )
                if len(counted.rejects) < SHOWN:
                    counted.reject(example, Rejected(code, advice))
                continue
            finally:
                counted.read(objects)
            sha256 = hashlib.sha256(image.content).hexdigest()
            counted.count({**record, "sha256": sha256}, image, pixels=pixels)
    durable.write_whole(manifest.lengths_file(folder / shard), tfrecord.as_bytes(lengths))
    summary.write(counted, folder)
    return shard


def _framed(records: Any, shard: str, counted: Summary) -> Iterator[bytes]:
    try:
        yield from tfrecord.read(records)
    except ValueError as error:
        counted.reject(
            Example(index.split_of(shard), "file", shard, shard, "", {}),
            Rejected("file_corrupt", f"{error}; fetch the file again"),
        )


def _check(record: dict[str, Any], image: Image, adoption: Adoption) -> None:
    """Sizes and labels; names the labels, by the data set's list or by number."""
    if (record["height"], record["width"]) not in ((0, 0), (image.height, image.width)):
        raise Rejected(
            "image_size",
            f"the record says {record['width']}x{record['height']}, the image is {image.width}x{image.height}",
        )
    for item in record.get("objects", [record] if "label" in record else []):
        number = item["label"] - adoption.first_label
        if number < 0 or (adoption.labels and number >= len(adoption.labels)):
            raise Rejected(
                "unknown_class",
                f"label {item['label']} is not one of dataset.labels, which start at {adoption.first_label}",
            )
        # Number and name travel together until every file has been read.
        item["text"] = (
            f"{item['label']}\0{adoption.labels[number] if adoption.labels else item['text']}"
        )
        top, left, bottom, right = item.get("box", (0, 0, 1, 1))
        if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
            raise Rejected(
                "box_malformed",
                f"box {item['box']} is not (ymin, xmin, ymax, xmax) as fractions of the image",
            )


def _check_masks(record: dict[str, Any], image: Image, adoption: Adoption) -> dict[str, int]:
    """Sizes and values of masks, of classes or of objects; returns how many pixels each class has."""
    pixels: dict[str, int] = {}
    if "mask" in record:
        classes = _mask(record["mask"], image)
        # As of labels: number and name travel together.
        numbered = [f"{number}\0{label}" for number, label in enumerate(adoption.labels)]
        pixels = masks.pixels(classes, numbered)
    for item in record.get("objects", ()):
        if item["mask"] is not None and (most := int(_mask(item["mask"], image).max())) > 1:
            raise Rejected(
                "mask_malformed",
                f"a mask has the value {most}; an object's pixels are 1, all others 0",
            )
    return pixels


def _mask(content: bytes, image: Image) -> np.ndarray:
    values = masks.as_tensorflow_reads(content)
    masks.check_size(values, image.height, image.width)
    return values


def _refuse(summaries: list[Summary], target: epath.Path) -> None:
    rejects = [reject for one in summaries for reject in one.rejects]
    if rejects:
        shown = "\n".join(
            f"{file} record {record}: {code}: {advice}"
            for _, file, record, code, advice, *_ in rejects[:3]
        )
        raise UsageError(
            f"{len(rejects)} records do not fit, and adopted files are not rewritten:\n{shown}\nall of them: {target}/{manifest.REJECTS}"
        )


def _named(
    labels: tuple[str, ...], first_label: int, summaries: list[Summary]
) -> tuple[Listing, list[Summary]]:
    """Class names in the order of their numbers, and counts under those names."""
    names = {
        int(number): text
        for one in summaries
        for number, _, text in (key.partition("\0") for key in one.classes)
    }
    count = len(labels) or max(names, default=first_label - 1) - first_label + 1
    known = tuple(
        labels[place]
        if labels
        else names.get(place + first_label) or f"class {place + first_label}"
        for place in range(count)
    )
    renamed = [
        replace(
            one,
            classes={
                known[int(key.partition("\0")[0]) - first_label]: number
                for key, number in one.classes.items()
            },
        )
        for one in summaries
    ]
    has_masks = 0 < sum(one.objects for one in summaries) == sum(one.masks for one in summaries)
    tally = Tally(sum(one.examples_read for one in summaries))
    return Listing(known, has_masks, (), tally=tally), renamed
