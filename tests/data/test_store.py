"""Records on disk: equal for equal input, whole or absent, and mended."""

import io
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import compose
from pipelines.data import manifest, tfrecord
from pipelines.data.manifest import Manifest
from pipelines.usage import UsageError
from tasks import _wire
from tests.data.conftest import coco, save

Build = Callable[..., Manifest]


def digests(built: Manifest) -> list[str]:
    return [shard.sha256 for split in built.splits.values() for shard in split.shards]


def examples(built: Manifest, split: str) -> list[dict]:
    folder = Path(built.directory)
    return [_wire.parse(record) for shard in built.splits[split].shards for record in tfrecord.read((folder / shard.file).open("rb"))]


def lengths(built: Manifest, split: str) -> list[int]:
    return [int(length) for shard in built.splits[split].shards for length in np.fromfile(f"{built.directory}/{shard.file}.lengths", "<u4")]


def test_shuffled_input_writes_the_same_bytes(build: Build, tmp_path: Path) -> None:
    one, _ = coco(tmp_path / "one" / "images")
    two, _ = coco(tmp_path / "two" / "images", shuffled=7)
    built = [build("dataset=coco", f"dataset.images={file.parent}/images", f"dataset.annotations={file}") for file in (one, two)]
    assert built[0].directory != built[1].directory
    assert digests(built[0]) == digests(built[1])


def test_more_shards_than_records_leaves_empty_shards(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images", 5)
    built = build("dataset=coco", f"dataset.images={tmp_path}/images", f"dataset.annotations={file}", "dataset.shards={train:7}")
    assert len(built.splits["train"].shards) == 7
    assert sum(shard.examples for shard in built.splits["train"].shards) == built.splits["train"].examples
    assert min(shard.bytes for shard in built.splits["train"].shards) == 0


def test_a_users_coco_folder_gives_boxes_masks_and_labels_without_gaps(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    built = build("dataset=coco", f"dataset.images={tmp_path}/images", f"dataset.annotations={file}")
    assert built.labels == ("cat", "dog") and built.has_masks and built.formats == ("jpeg",)
    assert sum(split.examples for split in built.splits.values()) == 10
    assert built.classes["train"]["cat"] == 2 * built.splits["train"].examples
    example = examples(built, "train")[0]
    assert sorted(example["image/object/class/label"]) == [1, 1, 2]
    assert example["image/object/is_crowd"].count(1) == 1
    assert len(example["image/object/mask"]) == 3


def test_a_second_build_returns_what_is_there_without_beam_or_tensorflow(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    overrides = ["dataset=coco", f"dataset.images={tmp_path}/images", f"dataset.annotations={file}"]
    built = build(*overrides)
    code = (
        "import sys; from pipelines import config; from pipelines.commands import data\n"
        "data.run(config.compose(sys.argv[1:])); print({'apache_beam', 'tensorflow', 'cv2'} & set(sys.modules))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, *overrides, f"data_dir={tmp_path}/data"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert done.stdout.splitlines()[-1] == "set()"
    assert built.directory in done.stdout


def test_lengths_beside_a_shard_lead_to_each_of_its_records(build: Build, tmp_path: Path) -> None:
    file, document = coco(tmp_path / "images", 30)
    document["images"][4]["width"] = 640  # a record that is left out
    save(tmp_path / "images", document)
    built = build("dataset=coco", f"dataset.images={tmp_path}/images", f"dataset.annotations={file}", "dataset.shards={train:3}", "dataset.max_reject_fraction=1")
    for shard in built.splits["train"].shards:
        content, at = Path(built.directory, shard.file).read_bytes(), 12
        records = list(tfrecord.read(io.BytesIO(content)))
        found = np.fromfile(f"{built.directory}/{shard.file}.lengths", "<u4").tolist()
        assert len(found) == shard.examples > 0
        for length, record in zip(found, records, strict=True):
            assert content[at : at + length] == record
            at += length + 16


def test_lost_lengths_are_written_again(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    overrides = ["dataset=coco", f"dataset.images={tmp_path}/images", f"dataset.annotations={file}"]
    built = build(*overrides)
    before = lengths(built, "train")
    Path(built.directory, built.splits["train"].shards[0].file + ".lengths").unlink()
    assert manifest.damaged(built) == [built.splits["train"].shards[0]]
    assert lengths(build(*overrides), "train") == before


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:20] + bytes([content[20] ^ 1]) + content[21:]])
def test_find_names_a_damaged_shard_and_building_mends_it(build: Build, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file, _ = coco(tmp_path / "images")
    overrides = ["dataset=coco", f"dataset.images={tmp_path}/images", f"dataset.annotations={file}"]
    built = build(*overrides)
    shard = Path(built.directory) / built.splits["train"].shards[0].file
    content = shard.read_bytes()
    shard.write_bytes(damage(content))
    os.utime(shard, (time.time() + 10,) * 2)
    dataset = compose(overrides).dataset
    assert dataset is not None
    with pytest.raises(UsageError, match=f"{shard.name} is missing or damaged; mend it with: make data DATA=coco"):
        manifest.find(str(tmp_path / "data"), dataset, built.version)
    build(*overrides)
    assert shard.read_bytes() == content
    assert manifest.find(str(tmp_path / "data"), dataset, built.version) == built


def test_a_changed_image_is_other_data(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    overrides = ["dataset=coco", f"dataset.images={tmp_path}/images", f"dataset.annotations={file}"]
    built = build(*overrides)
    os.utime(tmp_path / "images" / "001.jpg")
    assert build(*overrides).directory == built.directory
    (tmp_path / "images" / "001.jpg").write_bytes((tmp_path / "images" / "002.jpg").read_bytes())
    assert build(*overrides).directory != built.directory


def test_a_manifest_survives_its_own_text(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    built = build("dataset=coco", f"dataset.images={tmp_path}/images", f"dataset.annotations={file}")
    assert manifest.from_json(built.to_json(), built.directory) == built
    assert manifest.load(built.directory).patterns() == {split: f"{built.directory}/{split}-*.tfrecord" for split in built.splits}


def test_missing_fields_are_named_with_the_command(build: Build) -> None:
    with pytest.raises(UsageError, match=r"dataset.images=<path> dataset.annotations=<path>; as in: make data DATA=coco"):
        build("dataset=coco")
