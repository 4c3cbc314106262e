"""Shards written from those of an earlier build: the bytes of a build from nothing, and never those of a damaged shard."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.data.manifest import Manifest
from tests.data.conftest import coco, coco_at, save
from tests.data.test_crash import command, leftovers, start, starved
from tests.data.test_store import flipped

Build = Callable[..., Manifest]
SAID = "take most of their records from earlier ones"
SHARDS = "dataset.shards={train:2,validation:2}"


def files_of(built: Manifest) -> dict[str, bytes]:
    """All that lies in a data set's folder, but for what is known of the files' times."""
    folder = Path(built.directory)
    found = {}
    for file in folder.rglob("*"):
        if file.is_file() and file.name != "checks.json":
            found[str(file.relative_to(folder))] = file.read_bytes()
    return found


def change(root: Path, document: dict[str, Any]) -> None:
    """Changes a little of everything: pictures, boxes, and which images there are."""
    images = root / "images"
    (images / "007.jpg").write_bytes((images / "008.jpg").read_bytes())
    (images / "031.jpg").write_bytes(b"\xff\xd8broken")
    # An end marker twice: TensorFlow has to be asked, or nobody where nothing is checked.
    (images / "040.jpg").write_bytes((images / "040.jpg").read_bytes() + b"\xff\xd9")
    (images / "050.jpg").unlink()
    document["images"] = [entry for entry in document["images"] if entry["id"] != 50]
    kept = [entry for entry in document["annotations"] if entry["image_id"] != 50]
    kept[0]["bbox"] = [4.5, 4, 16, 12]  # Moves all that follows in the file.
    kept[300]["bbox"] = [4, 4, 0, 12]
    document["annotations"] = kept
    save(images, document)


@pytest.mark.parametrize("masks", [True, False])
def test_shards_of_which_little_has_changed_have_the_bytes_of_a_build_from_nothing(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], masks: bool
) -> None:
    file, document = coco(tmp_path / "images", 400)
    overrides = [
        *coco_at(file),
        SHARDS,
        f"dataset.include_masks={masks}",
        "dataset.max_reject_fraction=0.1",
    ]
    before = build(*overrides)
    whole = files_of(before)
    assert SAID not in capsys.readouterr().out
    change(tmp_path, document)
    after = build(*overrides)
    assert f"3 shards {SAID}" in capsys.readouterr().out
    fresh = build(*overrides, data_dir=tmp_path / "fresh")
    assert after == fresh and after != before
    assert after.counts["examples_rejected"] == 1 and after.counts["objects_rejected"] == 1
    assert files_of(after) == files_of(fresh)
    assert files_of(before) == whole


def test_what_was_written_from_earlier_shards_is_an_earlier_shard_itself(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = coco(tmp_path / "images", 200)
    overrides = [*coco_at(file), "dataset.shards={train:1}"]
    built = build(*overrides)
    for number in (7, 8, 9):
        picture = tmp_path / "images" / f"{number:03d}.jpg"
        picture.write_bytes(picture.read_bytes() + b"\0")
        built = build(*overrides)
        assert SAID in capsys.readouterr().out
    assert files_of(built) == files_of(build(*overrides, data_dir=tmp_path / "fresh"))


def test_other_recipes_take_no_records(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = coco(tmp_path / "images", 100)
    overrides = [*coco_at(file), "dataset.shards={train:1}"]
    build(*overrides)
    build(*overrides, "dataset.include_masks=false")
    build(*overrides, "dataset.convert={bmp:png}")
    assert SAID not in capsys.readouterr().out


def rotten_record(folder: Path) -> None:
    shard = next(folder.glob("train-*"))
    flipped(shard, shard.stat().st_size // 2)


def rotten_length(folder: Path) -> None:
    flipped(next(folder.glob("train-*")), 3)


def rotten_list(folder: Path) -> None:
    flipped(next((folder / ".shards").glob("train-*.examples")), 300)


def short(folder: Path) -> None:
    shard = next(folder.glob("train-*"))
    os.truncate(shard, shard.stat().st_size // 2)


def lost(folder: Path) -> None:
    next(folder.glob("train-*")).unlink()


@pytest.mark.parametrize("damage", [rotten_record, rotten_length, rotten_list, short, lost])
def test_nothing_is_taken_from_a_damaged_shard(
    build: Build,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
) -> None:
    file, _ = coco(tmp_path / "images", 100)
    overrides = [*coco_at(file), "dataset.shards={train:1}", "dataset.validation_fraction=0"]
    before = build(*overrides)
    damage(Path(before.directory))
    (tmp_path / "images" / "007.jpg").write_bytes((tmp_path / "images" / "008.jpg").read_bytes())
    after = build(*overrides)
    assert SAID not in capsys.readouterr().out
    assert files_of(after) == files_of(build(*overrides, data_dir=tmp_path / "fresh"))


def test_a_full_disk_leaves_the_earlier_data_and_nothing_of_the_new(
    build: Build, tmp_path: Path
) -> None:
    coco(tmp_path / "images", 200)
    for picture in (tmp_path / "images").iterdir():
        picture.write_bytes(
            picture.read_bytes() + bytes(5000)
        )  # Behind the end, where no decoder looks.
    whole_split = ["dataset.shards={train:1}", "dataset.validation_fraction=0"]
    typed = [*command(tmp_path, tmp_path / "data"), *whole_split]
    before = build(*typed[4:])
    whole = files_of(before)
    (tmp_path / "images" / "007.jpg").write_bytes((tmp_path / "images" / "008.jpg").read_bytes())
    starved(typed, 300_000)  # More than the index takes.
    assert files_of(before) == whole
    assert len(list((tmp_path / "data").glob("coco-*/train-*"))) == 1
    after = build(*typed[4:])
    assert files_of(after) == files_of(build(*typed[4:], data_dir=tmp_path / "fresh"))


@pytest.mark.slow
def test_killed_while_shards_are_written_from_earlier_ones(build: Build, tmp_path: Path) -> None:
    coco(tmp_path / "images", 2000)
    before = build(*command(tmp_path, tmp_path)[4:])
    whole = files_of(before)
    (tmp_path / "images" / "007.jpg").write_bytes((tmp_path / "images" / "008.jpg").read_bytes())
    moments = random.Random(0)
    typed = command(tmp_path, tmp_path)
    for _ in range(6):
        victim = start(typed)
        seen = False
        while not seen and victim.poll() is None:
            seen = bool(list(tmp_path.glob("coco-*/.shards/*.partial")))
        time.sleep(moments.uniform(0, 0.02))
        os.killpg(victim.pid, signal.SIGKILL)
        victim.communicate()
        assert files_of(before) == whole
    subprocess.run(typed, check=True, capture_output=True)
    after = build(*typed[4:])
    assert files_of(after) == files_of(build(*typed[4:-1], data_dir=tmp_path / "fresh"))
    assert leftovers(Path(after.directory)) == []
