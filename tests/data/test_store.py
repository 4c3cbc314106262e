"""Records on disk: equal for equal input, whole or absent, and repaired."""

import glob
import io
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from etils import epath

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
import tensorflow as tf

from pipelines.config import compose
from pipelines.data import checks, manifest, summary
from pipelines.data.manifest import Manifest
from pipelines.data.summary import Summary
from pipelines.system import tfrecord
from pipelines.usage import UsageError
from tasks import _wire
from tests.conftest import typed
from tests.data.conftest import coco, coco_at, save

Build = Callable[..., Manifest]


def digests(built: Manifest) -> list[str]:
    return [shard.sha256 for split in built.splits.values() for shard in split.shards]


def examples(built: Manifest, split: str) -> list[dict]:
    folder = Path(built.directory)
    return [
        _wire.parse(record)
        for shard in built.splits[split].shards
        for record in tfrecord.read((folder / shard.file).open("rb"))
    ]


def lengths(built: Manifest, split: str) -> list[int]:
    return [
        int(length)
        for shard in built.splits[split].shards
        for length in np.fromfile(f"{built.directory}/.shards/{shard.file}.lengths", "<u4")
    ]


def test_shuffled_input_writes_the_same_bytes(build: Build, tmp_path: Path) -> None:
    one, _ = coco(tmp_path / "one" / "images")
    two, _ = coco(tmp_path / "two" / "images", shuffled=7)
    built = [build(*coco_at(file)) for file in (one, two)]
    assert built[0].directory != built[1].directory
    assert digests(built[0]) == digests(built[1])


def test_more_shards_than_records_leaves_empty_shards(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images", 5)
    built = build(
        *coco_at(file),
        "dataset.shards={train:7}",
    )
    assert len(built.splits["train"].shards) == 7
    assert (
        sum(shard.examples for shard in built.splits["train"].shards)
        == built.splits["train"].examples
    )
    assert min(shard.bytes for shard in built.splits["train"].shards) == 0


def test_a_users_coco_folder_gives_boxes_masks_and_labels_without_gaps(
    build: Build, tmp_path: Path
) -> None:
    file, _ = coco(tmp_path / "images")
    built = build(*coco_at(file))
    assert built.labels == ("cat", "dog") and built.has_masks and built.formats == ("jpeg",)
    assert sum(split.examples for split in built.splits.values()) == 10
    assert built.classes["train"]["cat"] == 2 * built.splits["train"].examples
    example = examples(built, "train")[0]
    assert sorted(example["image/object/class/label"]) == [1, 1, 2]
    assert example["image/object/is_crowd"].count(1) == 1
    assert len(example["image/object/mask"]) == 3


def test_a_second_build_returns_what_is_there_without_beam_or_tensorflow(
    build: Build, tmp_path: Path
) -> None:
    file, _ = coco(tmp_path / "images")
    overrides = coco_at(file)
    built = build(*overrides)
    overrides.append("dataset.validate=none")
    code = (
        "import sys; from pipelines import config; from pipelines.commands import data\n"
        "data.run(config.compose(sys.argv[1:])); print({'apache_beam', 'tensorflow', 'cv2'} & set(sys.modules))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *overrides, f"data_dir={tmp_path}/data"],
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert done.stdout.splitlines()[-1] == "set()"
    assert built.directory in done.stdout


def test_lengths_beside_a_shard_lead_to_each_of_its_records(build: Build, tmp_path: Path) -> None:
    file, document = coco(tmp_path / "images", 30)
    document["images"][4]["width"] = 640  # a record that is left out
    save(tmp_path / "images", document)
    built = build(
        *coco_at(file),
        "dataset.shards={train:3}",
        "dataset.max_reject_fraction=1",
    )
    for shard in built.splits["train"].shards:
        content, at = Path(built.directory, shard.file).read_bytes(), 12
        records = list(tfrecord.read(io.BytesIO(content)))
        found = np.fromfile(f"{built.directory}/.shards/{shard.file}.lengths", "<u4").tolist()
        assert len(found) == shard.examples > 0
        for length, record in zip(found, records, strict=True):
            assert content[at : at + length] == record
            at += length + 16


def test_lost_lengths_are_written_again(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    overrides = coco_at(file)
    built = build(*overrides)
    before = lengths(built, "train")
    Path(built.directory, ".shards", built.splits["train"].shards[0].file + ".lengths").unlink()
    assert manifest.damaged(built) == [built.splits["train"].shards[0]]
    assert lengths(build(*overrides), "train") == before


def flipped(file: Path, at: int = 20) -> None:
    """Turns a bit without a trace in size or time, as far as a program can; a disk that rots leaves none at all."""
    before = file.stat()
    with file.open("r+b") as content:
        content.seek(at)
        byte = content.read(1)[0]
        content.seek(at)
        content.write(bytes([byte ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


@pytest.mark.parametrize("damage", [Path.unlink, cut, flipped], ids=["missing", "cut", "flipped"])
def test_find_names_a_damaged_shard_and_the_command_it_names_repairs_it(
    build: Build, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    file, _ = coco(tmp_path / "images")
    overrides = [
        *coco_at(file),
        "dataset.validate=none",
    ]
    built = build(*overrides)
    shard = Path(built.directory) / built.splits["train"].shards[0].file
    content = shard.read_bytes()
    damage(shard)
    dataset = compose(overrides).dataset
    assert dataset is not None
    with pytest.raises(
        UsageError,
        match=f"{shard.name} is missing or damaged; to repair it: make data DATA=coco ARGS=",
    ) as refused:
        manifest.find(str(tmp_path / "data"), dataset, built.version)
    command = str(refused.value).partition("to repair it: ")[2]
    subprocess.run(
        [sys.executable, "-m", "pipelines", *typed(command)], check=True, capture_output=True
    )
    assert shard.read_bytes() == content
    assert manifest.find(str(tmp_path / "data"), dataset, built.version) == built


def test_a_shard_without_any_trace_of_its_damage_is_found_by_reading_all_of_them(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = coco(tmp_path / "images", 30)
    overrides = [
        *coco_at(file),
        "dataset.shards={train:4}",
    ]
    built = build(*overrides)
    damaged, whole = (
        Path(built.directory, shard.file) for shard in built.splits["train"].shards[:2]
    )
    content, time_of = damaged.read_bytes(), whole.stat().st_mtime_ns
    flipped(damaged)
    # As if the stamps were taken after the bit had turned.
    known = checks.read(epath.Path(built.directory))
    known.stamps = manifest.stamps(built)
    checks.write(epath.Path(built.directory), known)
    assert build(*overrides) == built and damaged.read_bytes() != content
    assert build(*overrides, "verify=true") == built and damaged.read_bytes() == content
    assert f"{damaged.name} is missing or damaged; writing it again" in capsys.readouterr().out
    assert whole.stat().st_mtime_ns == time_of


def test_data_that_were_copied_are_read_once_and_then_known(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    overrides = coco_at(file)
    built = build(*overrides)
    shutil.copytree(tmp_path / "data", tmp_path / "copied")
    copied = build(*overrides, data_dir=tmp_path / "copied")
    assert copied == built and Path(copied.directory).parent == tmp_path / "copied"
    assert checks.read(epath.Path(copied.directory)).stamps == manifest.stamps(copied)


def test_shards_of_an_interrupted_build_are_known_by_their_bytes_not_their_size(
    build: Build, tmp_path: Path
) -> None:
    file, _ = coco(tmp_path / "images", 30)
    overrides = [
        *coco_at(file),
        "dataset.shards={train:4}",
    ]
    built = build(*overrides)
    folder = epath.Path(built.directory)
    for entry in json.loads((folder / "shards.json").read_text()).values():
        summary.write(Summary(**entry), folder)
    (folder / "manifest.json").unlink()
    (folder / "shards.json").unlink()
    zeroed = Path(built.directory, built.splits["train"].shards[0].file)
    content = zeroed.read_bytes()
    zeroed.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    assert build(*overrides) == built and zeroed.read_bytes() == content


@pytest.mark.parametrize("pattern", ["train-*", "train*", "*.tfrecord*", "*train*"])
def test_patterns_that_people_type_match_shards_only(
    build: Build, tmp_path: Path, pattern: str
) -> None:
    file, _ = coco(tmp_path / "images")
    overrides = [
        *coco_at(file),
        "dataset.shards={train:3}",
    ]
    built = build(*overrides, "dataset.validation_fraction=0")
    shards = [f"{built.directory}/{shard.file}" for shard in built.splits["train"].shards]
    assert sorted(glob.glob(f"{built.directory}/{pattern}")) == shards
    assert sorted(tf.io.gfile.glob(f"{built.directory}/{pattern}")) == shards
    assert (
        len(
            list(
                tf.data.TFRecordDataset(tf.data.Dataset.list_files(f"{built.directory}/{pattern}"))
            )
        )
        == 10
    )


def test_folders_of_the_layout_before_are_left_alone_and_built_anew(
    build: Build, tmp_path: Path
) -> None:
    file, _ = coco(tmp_path / "images")
    old = tmp_path / "data" / "coco-0123456789abcdef"
    old.mkdir(parents=True)
    (old / "train-00000-of-00001.tfrecord").write_bytes(b"")
    (old / "train-00000-of-00001.tfrecord.lengths").write_bytes(b"")
    (old / "shards.json").write_text(
        '{"train-00000-of-00001.tfrecord": {"file": "train-00000-of-00001.tfrecord", "inputs": "0", "gone": 1}}'
    )
    (old / "manifest.json").write_text("{}")
    built = build(*coco_at(file))
    assert built.splits["train"].examples == 8 and len(list(old.iterdir())) == 4


def test_building_leaves_the_loggers_as_they_were(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    logging.disable(logging.INFO)
    try:
        build(*coco_at(file))
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)


def test_a_changed_image_is_other_data(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    overrides = coco_at(file)
    built = build(*overrides)
    os.utime(tmp_path / "images" / "001.jpg")
    assert build(*overrides).directory == built.directory
    (tmp_path / "images" / "001.jpg").write_bytes((tmp_path / "images" / "002.jpg").read_bytes())
    assert build(*overrides).directory != built.directory


def test_a_manifest_survives_its_own_text(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    built = build(*coco_at(file))
    assert manifest.from_json(built.to_json(), built.directory) == built
    assert manifest.load(built.directory).patterns() == {
        split: f"{built.directory}/{split}-*.tfrecord" for split in built.splits
    }


def test_missing_fields_are_named_with_the_command(build: Build) -> None:
    with pytest.raises(
        UsageError,
        match=r"dataset.images=<path> dataset.annotations=<path>; as in: make data DATA=coco",
    ):
        build("dataset=coco")
