"""Prepared builders of TensorFlow Datasets, read from files as it lays them out, broken in the ways files break."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.manifest import Manifest
from pipelines.system import tfrecord
from pipelines.usage import UsageError
from tasks import _wire
from tests.data.test_links import TOLERANT, rejects
from tests.data.test_rejects import picture

Build = Callable[..., Manifest]
GIVEN = ["dataset=tfds", "dataset.builder=tiny:1.0.0", "dataset.task=detection"]


def features(number: int) -> dict[str, list[Any]]:
    objects = number % 3
    return {
        "image": [picture()],
        "image/id": [100 + number],
        "label": [number % 2],
        "objects/bbox": [0.25, 0.5, 0.75, 1.0] * objects,
        "objects/label": [number % 2] * objects,
    }


def prepared(root: Path, records: list[dict[str, Any]], stated: int | None = None) -> Path:
    """A folder as `download_and_prepare` leaves it; returns its one file of records."""
    folder = root / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    file = folder / "tiny-train.tfrecord-00000-of-00001"
    file.write_bytes(
        b"".join(part for record in records for part in tfrecord.frame(_wire.serialize(record)))
    )
    lengths = [str(len(records) if stated is None else stated)]
    info = {
        "name": "tiny",
        "fileFormat": "tfrecord",
        "splits": [{"name": "train", "shardLengths": lengths}],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for feature in ("objects-label", "label"):
        (folder / f"{feature}.labels.txt").write_text("cat\ndog\n")
    return file


def test_objects_of_rejected_records_are_counted(build: Build, tmp_path: Path) -> None:
    records = [features(number) for number in range(12)]
    records[2]["image"] = [b"no image"]
    records[5]["objects/label"] = [0, 7]
    records[8]["objects/bbox"] = records[8]["objects/bbox"][:-1]
    records[11]["objects/label"] = [1]
    prepared(tmp_path, records)
    built = build(*GIVEN, f"dataset.root={tmp_path}", TOLERANT)
    assert built.rejects == {"image_unreadable": 1, "unknown_category": 1, "record_malformed": 2}
    counts = {name: count for name, count in built.counts.items() if name.startswith("objects")}
    # 0, 1 or 2 each, twelve in all; the last record states one class for its two boxes.
    assert counts == {
        "objects_read": 11, "objects_written": 5, "objects_rejected": 1, "objects_of_rejected_examples": 5,
    }  # fmt: skip
    assert built.counts["ids_hashed"] == 0


def test_a_record_that_is_no_example_is_rejected(build: Build, tmp_path: Path) -> None:
    file = prepared(tmp_path, [features(number) for number in range(3)], stated=4)
    with file.open("ab") as records:
        records.write(b"".join(tfrecord.frame(b"\xff\xff\xff nonsense")))
    built = build(*GIVEN, f"dataset.root={tmp_path}", TOLERANT, "dataset.validation_fraction=0")
    assert (
        list(rejects(built).values()) == ["record_corrupt"] and built.counts["examples_read"] == 4
    )


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def away(file: Path) -> None:
    file.unlink()


def dangling(file: Path) -> None:
    file.unlink()
    file.symlink_to("gone")


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (cut, r"tiny-train\.tfrecord-00000-of-00001"),
        (away, "it is not there; prepare the builder again"),
        (dangling, "the link leads to gone, where nothing can be read"),
        (empty, "no feature for image"),
    ],
)
def test_a_file_of_a_builder_that_is_broken_is_named(
    build: Build, tmp_path: Path, harm: Callable[[Path], None], says: str
) -> None:
    file = prepared(tmp_path, [features(number) for number in range(6)])
    harm(file)
    with pytest.raises(UsageError, match=says):
        build(*GIVEN, f"dataset.root={tmp_path}")


def test_a_builder_that_states_other_counts_stops_the_build(build: Build, tmp_path: Path) -> None:
    prepared(tmp_path, [features(number) for number in range(6)], stated=8)
    with pytest.raises(
        UsageError,
        match="dataset_info.json says 8 records, the files have 6; prepare the builder again",
    ):
        build(*GIVEN, f"dataset.root={tmp_path}")


def test_a_builder_is_named_within_its_root(build: Build, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"dataset.builder: '\.\.' cannot be part of a file's name"
    ):
        build("dataset=tfds", "dataset.builder=../x:1.0.0", f"dataset.root={tmp_path}")
    prepared(tmp_path, [features(0)])
    with pytest.raises(UsageError, match="has no split to train on"):
        build(*GIVEN, f"dataset.root={tmp_path}", "dataset.lists={validation:train}")
