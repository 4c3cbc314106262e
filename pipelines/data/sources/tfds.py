"""A prepared TensorFlow Datasets builder, read from its own files: images stay encoded and nothing imports TensorFlow."""

import functools
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from pipelines.config import Dataset, absolute
from pipelines.data import boxes, files, keys
from pipelines.data.example import Example, Loaded, Reject, Rejected
from pipelines.data.images import Image
from pipelines.data.keys import ALL
from pipelines.data.listing import Facts, Listing, Request, Tally
from pipelines.data.masks import check_size, encode_classes, pixels, read_classes
from pipelines.system import tfrecord
from pipelines.usage import UsageError, file_name

FACTS = Facts(
    tasks=("classification", "detection", "segmentation"),
    required=("builder",),
    optional=("lists",),
)
INFO = "dataset_info.json"
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
NEEDED = {
    "classification": ("image", "label"),
    "detection": ("image", "boxes", "classes"),
    "segmentation": ("image", "mask"),
}
VALIDATION = ("validation", "val", "test")  # splits to validate on, the first that there is
AGAIN = "prepare the builder again"

Features = Mapping[str, list[Any]]  # one record, feature by feature
Parse = Callable[[bytes], dict[str, list[Any]]]


def folder(dataset: Dataset) -> epath.Path:
    """Where TensorFlow Datasets keeps a prepared builder: <root>/<name>[/<config>]/<version>.

    Raises:
        UsageError: no version is given; without one the data could change under the same name.
    """
    name, _, version = str(dataset.builder).partition(":")
    if not version:
        example = f"write dataset.builder={name}:<version>, as in coco/2017:1.1.0"
        raise UsageError(f"dataset.builder: {name!r} has no version; {example}")
    for part in (*name.split("/"), version):
        file_name(part, "dataset.builder")
    return epath.Path(absolute(dataset.root or "~/tensorflow_datasets")) / name / version


def locations(dataset: Dataset) -> dict[str, dict[str, str]]:
    """The builder's folder, in place of what fields say."""
    return {"images": {ALL: str(folder(dataset))}}


def prepare(dataset: Dataset) -> None:
    """Lets TensorFlow Datasets prepare the builder on local disk, unless it is there."""
    target = folder(dataset)
    if files.is_remote(str(target)) or (target / INFO).exists():
        return
    print(f"data: preparing {dataset.builder} with TensorFlow Datasets in {target}", flush=True)
    # Imports TensorFlow, which takes seconds and is needed once.
    from pipelines.data import preparation

    preparation.run(dataset, target)


def listing(request: Request) -> Listing:
    """Every record of the training and the validation split."""
    path = request.places["images"][ALL]
    dataset = request.dataset
    info = _info(request, path)
    shards = _shards(request, info)
    if "train" not in shards:
        says = f"{dataset.builder} has no split to train on"
        raise UsageError(f"dataset.lists: {says}; write dataset.lists={{train:<split>}}")
    features = _features(request, f"{path}/{shards['train'][0]}")
    named = features["classes" if dataset.task == "detection" else "label"]
    labels = tuple(str(label) for label in dataset.labels or _labels(path, named))
    tally = Tally(examples=_stated(info, shards))
    items = _items(request, path, shards, tally.examples)
    shared = {"features": features, "labels": labels}
    return Listing(
        labels,
        dataset.task == "segmentation",
        items,
        shared,
        tally,
    )


def _info(request: Request, path: str) -> dict[str, Any]:
    """What the builder says of itself."""
    if INFO not in request.digests["images"][ALL]:
        advice = "prepare the builder with `tfds build`, and copy it there"
        raise UsageError(f"dataset.builder: {path} has no {INFO}; {advice}")
    info = json.loads(files.read(f"{path}/{INFO}"))
    file_format = info.get("fileFormat", "tfrecord")
    if file_format != "tfrecord":
        raise UsageError(f"{path}: prepared as {file_format}; prepare it as tfrecord")
    return info


def _stated(info: Mapping[str, Any], shards: Mapping[str, list[str]]) -> int:
    """How many records the builder says that the chosen files have."""
    lengths: dict[str, int] = {}
    for split in info["splits"]:
        names = _names(info, split)
        lengths |= zip(names, map(int, split["shardLengths"]), strict=True)
    return sum(lengths[name] for names in shards.values() for name in names)


def _names(info: Mapping[str, Any], split: Mapping[str, Any]) -> list[str]:
    """File names of a split."""
    count = len(split["shardLengths"])
    start = f"{info['name']}-{split['name']}.tfrecord"
    return [f"{start}-{number:05d}-of-{count:05d}" for number in range(count)]


def _shards(request: Request, info: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of files by our split; the builder's own splits by `dataset.lists`, else by their names."""
    splits = {split["name"]: split for split in info["splits"]}
    wanted = request.dataset.lists or _usual_splits(splits)
    missing = [name for name in wanted.values() if name not in splits]
    if missing:
        says = f"{request.dataset.builder} has no split {', '.join(missing)}"
        raise UsageError(f"dataset.lists: {says}; there are: {', '.join(splits)}")
    shards = {split: _names(info, splits[name]) for split, name in wanted.items()}
    _check_shards(request, shards)
    return shards


def _usual_splits(splits: Mapping[str, Any]) -> dict[str, str]:
    usual = {"train": "train"}
    for name in VALIDATION:
        if name in splits:
            usual["validation"] = name
            break
    return usual


def _check_shards(request: Request, shards: Mapping[str, list[str]]) -> None:
    """Refuses a builder whose files are not all there."""
    listed = request.folder("images", ALL)
    for names in shards.values():
        for name in names:
            if name in listed.digests:
                continue
            _, advice = listed.refusal(name) or ("", "it is not there")
            raise UsageError(f"dataset.builder: {listed.path}/{name}: {advice}; {AGAIN}")


def _features(request: Request, file: str) -> dict[str, str]:
    """Names of a record's features by use; empty where there is none."""
    names = _first_features(request, file)
    given = request.dataset.columns or {}
    features: dict[str, str] = {}
    for use, usual in FEATURES.items():
        features[use] = given.get(use) or _first_of(usual, names)
    for use in ("boxes", "classes"):
        # Lists are absent where an example has none: what is typical stands in for them.
        features[use] = features[use] or FEATURES[use][0]
    missing = [use for use in NEEDED[request.dataset.task] if not features[use]]
    if missing:
        says = f"no feature for {', '.join(missing)} in {request.dataset.builder}"
        raise UsageError(f"dataset.columns: {says}; it has {', '.join(sorted(names))}")
    return features


def _first_features(request: Request, file: str) -> set[str]:
    """Names of the features of a file's first record."""
    try:
        with files.opened(file) as records:
            return set(request.parse(next(tfrecord.read(records), b"")))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"dataset.builder: {file}: {error}; {AGAIN}") from None


def _first_of(usual: Sequence[str], names: set[str]) -> str:
    for name in usual:
        if name in names:
            return name
    return ""


def _labels(path: str, feature: str) -> list[str]:
    file = f"{path}/{feature.replace('/', '-')}.labels.txt"
    try:
        return files.read(file).decode().splitlines()
    except FileNotFoundError:
        says = f"{path} has no names for {feature or 'its masks'}"
        raise UsageError(f"dataset.labels: {says}; write dataset.labels=[…]") from None


def _items(
    request: Request,
    path: str,
    shards: Mapping[str, list[str]],
    stated: int,
) -> Iterator[Example | Reject]:
    is_divided = "validation" in shards
    met = 0
    for given, names in shards.items():
        for name in names:
            for example in _examples(request, given if is_divided else ALL, path, name):
                met += 1
                yield example
    if met != stated:
        raise UsageError(
            f"dataset.builder: {path}: {INFO} says {stated} records, the files have {met}; {AGAIN}"
        )


def _examples(
    request: Request,
    given: str,
    path: str,
    name: str,
) -> Iterator[Example]:
    """The examples of one file; `given` is the split that it is for, or ALL."""
    file = f"{path}/{name}"
    sha256 = request.digests["images"][ALL][name]
    for number, (start, length) in enumerate(_positions(file)):
        key = f"{name}:{number:06d}"
        yield Example(
            split=keys.chosen_split(given, key, request.dataset),
            key=key,
            file=file,
            name=key,
            content=keys.joint_digest(sha256, str(start)),
            own={"start": start, "length": length},
        )


def _positions(file: str) -> Iterator[tuple[int, int]]:
    """Where each record of a file starts, and how long it is."""
    with files.opened(file) as records:
        at = 0
        size = records.seek(0, os.SEEK_END)
        while at < size:
            records.seek(at)
            head = records.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
            if at + 16 + length > size:
                raise UsageError(f"dataset.builder: {file} is cut short at byte {at}; {AGAIN}")
            yield at + 12, length
            at += 16 + length


def _parsed(example: Example, request: Request) -> dict[str, list[Any]]:
    start = example.own["start"]
    length = example.own["length"]
    try:
        return _record(
            request.parse,
            example.file,
            start,
            length,
            example.content,
        )
    except UsageError:  # The store's failure, not the record's.
        raise
    except ValueError as error:
        raise Rejected("record_corrupt", f"{error}; {AGAIN}") from None


@functools.lru_cache(maxsize=1)
def _record(
    parse: Parse,
    file: str,
    start: int,
    length: int,
    content: str,
) -> dict[str, list[Any]]:
    """The features of one record, kept until the next is asked for.

    `content` tells apart what was there before.
    """
    return parse(files.read(file, start, length))


def objects(example: Example, request: Request) -> int:
    """How many objects a record has: each has one class."""
    if request.dataset.task != "detection":
        return 0
    try:
        record = _parsed(example, request)
    except Rejected:
        return 0  # Rejected, with its reason, as a whole.
    return len(record.get(request.shared["features"]["classes"], []))


def content(example: Example, request: Request) -> bytes:
    """The encoded image of one record."""
    feature = request.shared["features"]["image"]
    return _parsed(example, request).get(feature, [b""])[0]


def load(example: Example, image: Image, request: Request) -> Loaded:
    """What the task needs of one record, under the builder's own id where it has a numeric one."""
    record = _parsed(example, request)
    loaded = LOADERS[request.dataset.task](
        record,
        image,
        request,
    )
    features = request.shared["features"]
    number = _value(record, features["id"])
    name = _value(record, features["name"])
    if isinstance(number, int) and number >= 0:
        loaded.record["id"] = number
    if isinstance(name, bytes):
        loaded.record["file"] = name.decode("utf-8", "replace")
    return loaded


def _value(record: Features, feature: str) -> Any:
    """The first value of a feature; None where there is none."""
    return (record.get(feature) or [None])[0]


def _needed(record: Features, feature: str) -> Any:
    values = record.get(feature)
    if not values:
        advice = f"{AGAIN}, or name another feature: dataset.columns"
        raise Rejected("record_malformed", f"it has no {feature}; {advice}")
    return values[0]


def _classification(
    record: Features,
    image: Image,
    request: Request,
) -> Loaded:
    labels = request.shared["labels"]
    label = _needed(record, request.shared["features"]["label"])
    if not 0 <= label < len(labels):
        raise Rejected("unknown_class", f"label {label} has no name in dataset.labels")
    return Loaded({"label": label, "text": labels[label]})


def _detection(
    record: Features,
    image: Image,
    request: Request,
) -> Loaded:
    features = request.shared["features"]
    corners = record.get(features["boxes"], [])
    classes = record.get(features["classes"], [])
    count = len(classes)
    crowd = record.get(features["crowd"]) or [0] * count
    areas = record.get(features["areas"]) or [None] * count
    if len(corners) != 4 * count or len(crowd) != count or len(areas) != count:
        says = f"{count} classes, {len(corners)} coordinates"
        raise Rejected("record_malformed", f"{says}; {AGAIN}")
    loaded = Loaded({"objects": []})
    for number, label in enumerate(classes):
        sides = corners[4 * number : 4 * number + 4]
        try:
            item, clipped = _object(sides, label, image, request)
        except Rejected as rejected:
            loaded.rejects.append((f"object {number}", rejected))
            continue
        item["is_crowd"] = int(crowd[number])
        if areas[number]:
            item["area"] = float(areas[number])
        loaded.record["objects"].append(item)
        loaded.clipped += clipped
    return loaded


def _object(
    sides: Sequence[float],
    label: int,
    image: Image,
    request: Request,
) -> tuple[dict[str, Any], bool]:
    """An object whose box is (top, left, bottom, right) as fractions, and whether that had to be cut."""
    labels = request.shared["labels"]
    if not 0 <= label < len(labels):
        raise Rejected("unknown_category", f"label {label} has no name in dataset.labels")
    top, left, bottom, right = sides
    stated = [
        left * image.width,
        top * image.height,
        (right - left) * image.width,
        (bottom - top) * image.height,
    ]
    box, clipped = boxes.clipped(
        stated,
        image.height,
        image.width,
    )
    # In pixels, a box at the very edge may reach over it by what rounding does.
    is_inside = min(top, left) >= 0 and max(bottom, right) <= 1
    item = {
        "box": (max(0.0, top), max(0.0, left), min(1.0, bottom), min(1.0, right)),
        "label": label + 1,
        "text": labels[label],
        "area": box.area(),
    }
    return item, clipped and not is_inside


def _segmentation(
    record: Features,
    image: Image,
    request: Request,
) -> Loaded:
    classes = read_classes(_needed(record, request.shared["features"]["mask"]))
    check_size(classes, image.height, image.width)
    counts = pixels(classes, request.shared["labels"])
    return Loaded({"mask": encode_classes(classes)}, pixels=counts)


LOADERS = {
    "classification": _classification,
    "detection": _detection,
    "segmentation": _segmentation,
}
