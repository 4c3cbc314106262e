"""A data set's source taken elsewhere: the same files under the same names, and so the same fingerprint."""

import shutil
from pathlib import Path

import pytest

from pipelines import config
from pipelines.data import content, portable
from pipelines.usage import UsageError


def fingerprint(data_dir: Path, dataset: config.Dataset) -> str:
    found = content.find(str(data_dir), dataset)
    return content.fingerprint(dataset, 1, found)


def test_a_source_laid_out_elsewhere_has_its_fingerprint(tmp_path):
    for number, split in enumerate(("train", "validation")):
        folder = tmp_path / "photos" / split / "cat"
        folder.mkdir(parents=True)
        (folder / "one.jpg").write_bytes(b"pixels %d" % number)
    splits = f"{{train: {tmp_path}/photos/train, validation: {tmp_path}/photos/validation}}"
    dataset = config.compose(["dataset=image_folder", f"dataset.images={splits}"]).dataset
    built = {"digests": content.by_place(content.find(str(tmp_path / "data"), dataset))}
    files = portable.source_files(str(tmp_path / "data"), dataset, built)
    assert sorted(files) == [f"{tmp_path}/photos/train", f"{tmp_path}/photos/validation"]
    before = fingerprint(tmp_path / "data", dataset)

    names = {}
    for number, (place, by_name) in enumerate(files.items()):
        names[place] = f"{number}/{Path(place).name}"
        for name, path in by_name.items():
            target = tmp_path / "there" / names[place] / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    shutil.rmtree(tmp_path / "photos")
    moved = portable.moved(dataset, names, str(tmp_path / "there"))
    assert fingerprint(tmp_path / "data", moved) == before


def test_relative_places_below_a_root_move_too(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "list.csv").write_text("path,label\n")
    overrides = ["dataset=csv", f"dataset.root={tmp_path}", "dataset.annotations=a/list.csv"]
    dataset = config.compose([*overrides, "dataset.images=a"]).dataset
    names = {f"{tmp_path}/a/list.csv": "0/list.csv", f"{tmp_path}/a": "1/a"}
    moved = portable.moved(dataset, names, "/there")
    assert (moved.root, moved.annotations, moved.images) == ("/there", "0/list.csv", "1/a")
    assert dataset.annotations == "a/list.csv"


def test_generated_data_need_no_files_and_what_lies_behind_a_pattern_is_not_taken(tmp_path):
    digits = config.compose(["dataset=digits"]).dataset
    assert portable.source_files(str(tmp_path), digits, {}) == {}
    (tmp_path / "part-0.tfrecord").write_bytes(b"")
    shards = f"dataset.images={tmp_path}/part-*.tfrecord"
    adopted = config.compose(["dataset=tfrecord", shards]).dataset
    built = {"digests": content.by_place(content.find(str(tmp_path), adopted))}
    assert portable.source_files(str(tmp_path), adopted, built) is None
    (tmp_path / "part-0.tfrecord").write_bytes(b"others")
    with pytest.raises(UsageError, match="no longer what the run learned from"):
        portable.source_files(str(tmp_path), adopted, built)
