"""A prepared TensorFlow Datasets builder, read from its own files: images stay encoded and nothing imports TensorFlow."""

import functools
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines.data import files, sources
from pipelines.data.content import ALL
from pipelines.data.images import Image
from pipelines.data.masks import encode_classes, pixels, read_classes
from pipelines.data.sources import (
    Example,
    Listing,
    Reject,
    Rejected,
    Request,
    Tally,
)
from pipelines.system import tfrecord
from pipelines.usage import UsageError

Parse = Callable[[bytes], dict[str, list[Any]]]
TASKS = ("classification", "detection", "segmentation")
# Feature by use, the first that a record has; `dataset.columns` names others.
FEATURES = {
    "image": ("image", "image_left"),
    "name": ("image/filename", "file_name", "image/file_name"),
    "id": ("image/id", "image_id"),
    "label": ("label",),
    "boxes": ("objects/bbox",),
    "classes": ("objects/label",),
    "crowd": ("objects/is_crowd", "objects/is_difficult"),
    "areas": ("objects/area",),
    "mask": ("segmentation_label", "segmentation_mask", "label/segmentation"),
}
NEEDED = {"classification": ("image", "label"), "detection": ("image", "boxes", "classes"), "segmentation": ("image", "mask")}
VALIDATION = ("validation", "val", "test")


def listing(request: Request) -> Listing:
    """Every record of the training and the validation split."""
    folder = request.places["images"][ALL]
    if "dataset_info.json" not in request.digests["images"][ALL]:
        raise UsageError(f"dataset.builder: {folder} has no dataset_info.json; prepare the builder with `tfds build`, and copy it there")
    info = json.loads(files.read(f"{folder}/dataset_info.json"))
    if info.get("fileFormat", "tfrecord") != "tfrecord":
        raise UsageError(f"{folder}: prepared as {info['fileFormat']}; prepare it as tfrecord")
    shards = _shards(request, info)
    if "train" not in shards:
        raise UsageError(f"dataset.lists: {request.dataset.builder} has no split to train on; write dataset.lists={{train:<split>}}")
    features = _features(request, f"{folder}/{shards['train'][0]}")
    labels = request.dataset.labels or _labels(folder, features["classes" if request.dataset.task == "detection" else "label"])
    labels = tuple(str(label) for label in labels)
    shared = {"features": features, "labels": labels}
    tally = Tally(examples=_stated(info, shards))
    return Listing(labels, request.dataset.task == "segmentation", _items(request, folder, shards, tally.examples), shared, tally)


def _stated(info: Mapping[str, Any], shards: Mapping[str, list[str]]) -> int:
    """How many records the builder says that the chosen files have."""
    counts: dict[str, int] = {}
    for split in info["splits"]:
        lengths = [int(length) for length in split["shardLengths"]]
        counts |= {_shard(info, split["name"], number, len(lengths)): length for number, length in enumerate(lengths)}
    return sum(counts[name] for names in shards.values() for name in names)


def _shard(info: Mapping[str, Any], split: str, number: int, count: int) -> str:
    return f"{info['name']}-{split}.tfrecord-{number:05d}-of-{count:05d}"


def _shards(request: Request, info: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of files by our split; the builder's own splits by `dataset.lists`, else by their names."""
    theirs = {split["name"]: split for split in info["splits"]}
    held_out = next((name for name in VALIDATION if name in theirs), None)
    wanted = request.dataset.lists or {"train": "train", **({"validation": held_out} if held_out else {})}
    missing = [name for name in wanted.values() if name not in theirs]
    if missing:
        raise UsageError(f"dataset.lists: {request.dataset.builder} has no split {', '.join(missing)}; there are: {', '.join(theirs)}")
    found = {}
    for ours, name in wanted.items():
        count = len(theirs[name]["shardLengths"])
        found[ours] = [_shard(info, name, number, count) for number in range(count)]
    folder = request.folder("images", ALL)
    absent = [name for names in found.values() for name in names if name not in folder.digests]
    if absent:
        why = (folder.refusal(absent[0]) or ("", "it is not there"))[1]
        raise UsageError(f"dataset.builder: {folder.path}/{absent[0]}: {why}; prepare the builder again")
    return found


def _features(request: Request, file: str) -> dict[str, str]:
    try:
        with files.opened(file) as records:
            names = set(request.parse(next(tfrecord.read(records), b"")))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"dataset.builder: {file}: {error}; prepare the builder again") from None
    given = request.dataset.columns or {}
    found = {use: given.get(use) or next((name for name in choice if name in names), "") for use, choice in FEATURES.items()}
    # Lists are absent where an example has none: what is typical stands in for them.
    found |= {use: choice[0] for use, choice in FEATURES.items() if not found[use] and use in ("boxes", "classes")}
    missing = [use for use in NEEDED[request.dataset.task] if not found[use]]
    if missing:
        raise UsageError(f"dataset.columns: no feature for {', '.join(missing)} in {request.dataset.builder}; it has {', '.join(sorted(names))}")
    return found


def _labels(folder: str, feature: str) -> list[str]:
    try:
        return files.read(f"{folder}/{feature.replace('/', '-')}.labels.txt").decode().splitlines()
    except FileNotFoundError:
        raise UsageError(f"dataset.labels: {folder} has no names for {feature or 'its masks'}; write dataset.labels=[…]") from None


def _items(request: Request, folder: str, shards: Mapping[str, list[str]], stated: int) -> Iterator[Example | Reject]:
    whole, met = "validation" in shards, 0
    for ours, names in shards.items():
        for name in names:
            content = request.digests["images"][ALL][name]
            for number, (start, length) in enumerate(_positions(f"{folder}/{name}")):
                key = f"{name}:{number:06d}"
                met += 1
                split = ours if whole else sources.split_of(ALL, key, request.dataset)
                yield Example(split, key, f"{folder}/{name}", key, sources.digest(content, str(start)), {"start": start, "length": length})
    if met != stated:
        raise UsageError(
            f"dataset.builder: {folder}: dataset_info.json says {stated} records, the files have {met}; prepare the builder again"
        )


def _positions(file: str) -> Iterator[tuple[int, int]]:
    """Where each record of a file starts, and how long it is."""
    with files.opened(file) as records:
        at, size = 0, records.seek(0, os.SEEK_END)
        while at < size:
            records.seek(at)
            head = records.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
            if at + 16 + length > size:
                raise UsageError(f"dataset.builder: {file} is cut short at byte {at}; prepare the builder again")
            yield at + 12, length
            at += 16 + length


def _parsed(example: Example, request: Request) -> dict[str, list[Any]]:
    try:
        return _record(request.parse, example.file, example.more["start"], example.more["length"], example.content)
    except UsageError:  # The store's failure, not the record's.
        raise
    except ValueError as error:
        raise Rejected("record_corrupt", f"{error}; prepare the builder again") from None


@functools.lru_cache(maxsize=1)
def _record(parse: Parse, file: str, start: int, length: int, content: str) -> dict[str, list[Any]]:
    """The features of one record, kept until the next is asked for; `content` tells apart what was there before."""
    return parse(files.read(file, start, length))


def objects(example: Example, request: Request) -> int:
    """How many objects a record has: each has one class."""
    if request.dataset.task != "detection":
        return 0
    try:
        return len(_parsed(example, request).get(request.shared["features"]["classes"], []))
    except Rejected:
        return 0  # Rejected, with its reason, as a whole.


def content(example: Example, request: Request) -> bytes:
    """The encoded image of one record."""
    return _parsed(example, request).get(request.shared["features"]["image"], [b""])[0]


def load(example: Example, image: Image, request: Request) -> dict[str, Any]:
    """What the task needs of one record, under the builder's own id where it has a numeric one."""
    features, record = request.shared["features"], _parsed(example, request)
    one = {use: (record.get(name) or [None])[0] for use, name in features.items() if name}
    identity = {"id": one["id"]} if isinstance(one.get("id"), int) and one["id"] >= 0 else {}
    named = {"file": one["name"].decode("utf-8", "replace")} if isinstance(one.get("name"), bytes) else {}
    return {**identity, **named, **LOADERS[request.dataset.task](record, image, request, features)}


def _first(record: Mapping[str, list[Any]], feature: str) -> Any:
    values = record.get(feature)
    if not values:
        raise Rejected("record_malformed", f"it has no {feature}; prepare the builder again, or name another feature: dataset.columns")
    return values[0]


def _classification(record: Mapping[str, list[Any]], image: Image, request: Request, features: Mapping[str, str]) -> dict[str, Any]:
    label = _first(record, features["label"])
    if not 0 <= label < len(request.shared["labels"]):
        raise Rejected("unknown_class", f"label {label} has no name in dataset.labels")
    return {"label": label, "text": request.shared["labels"][label]}


def _detection(record: Mapping[str, list[Any]], image: Image, request: Request, features: Mapping[str, str]) -> dict[str, Any]:
    flat, classes = record.get(features["boxes"], []), record.get(features["classes"], [])
    crowd = record.get(features["crowd"]) or [0] * len(classes)
    areas = record.get(features["areas"]) or [None] * len(classes)
    if len(flat) != 4 * len(classes) or len(crowd) != len(classes) or len(areas) != len(classes):
        raise Rejected("record_malformed", f"{len(classes)} classes, {len(flat)} coordinates; prepare the builder again")
    found: dict[str, Any] = {"objects": [], "rejects": [], "clipped": 0}
    for number, (label, is_crowd, area) in enumerate(zip(classes, crowd, areas, strict=True)):
        top, left, bottom, right = flat[4 * number : 4 * number + 4]
        try:
            if not 0 <= label < len(request.shared["labels"]):
                raise Rejected("unknown_category", f"label {label} has no name in dataset.labels")
            pixels = [left * image.width, top * image.height, (right - left) * image.width, (bottom - top) * image.height]
            box, clipped = sources.clipped(pixels, image.height, image.width)
        except Rejected as rejected:
            found["rejects"].append((f"object {number}", rejected))
            continue
        found["clipped"] += clipped and not (0 <= min(top, left) and max(bottom, right) <= 1)
        item = {"box": (max(0.0, top), max(0.0, left), min(1.0, bottom), min(1.0, right)), "label": label + 1, "text": request.shared["labels"][label]}
        found["objects"].append({**item, "is_crowd": int(is_crowd), "area": float(area) if area else (box[2] - box[0]) * (box[3] - box[1])})
    return found


def _segmentation(record: Mapping[str, list[Any]], image: Image, request: Request, features: Mapping[str, str]) -> dict[str, Any]:
    classes = read_classes(_first(record, features["mask"]))
    if classes.shape != (image.height, image.width):
        raise Rejected("mask_size", f"the mask is {classes.shape[1]}x{classes.shape[0]}, the image {image.width}x{image.height}")
    return {"mask": encode_classes(classes), "pixels": pixels(classes, request.shared["labels"])}


LOADERS = {"classification": _classification, "detection": _detection, "segmentation": _segmentation}
