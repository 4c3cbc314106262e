"""Clips as people bring them: folders of frames, animated pictures, and what is neither."""

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tasks
from pipelines.data import embedded
from pipelines.data.manifest import Manifest
from pipelines.system import tfrecord
from pipelines.usage import UsageError

Build = Callable[..., Manifest]
TOLERANT = "dataset.max_reject_fraction=1"


def frame(level: int, size: tuple[int, int] = (32, 24), kind: str = "JPEG") -> bytes:
    """A picture of one grey."""
    file = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(file, kind)
    return file.getvalue()


def levels(encoded: list[bytes]) -> list[int]:
    """The greys of frames."""
    return [Image.open(io.BytesIO(content)).getpixel((3, 3))[0] for content in encoded]


def clip(folder: Path, greys: list[int], ending: str = "jpg") -> None:
    folder.mkdir(parents=True)
    kind = {"jpg": "JPEG", "png": "PNG", "bmp": "BMP"}[ending]
    for number, level in enumerate(greys, start=1):
        (folder / f"frame{number}.{ending}").write_bytes(frame(level, kind=kind))


def animation(file: Path, greys: list[int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.new("RGB", (32, 24), (level, level, level)) for level in greys]
    first.save(file, save_all=True, append_images=others, duration=50, lossless=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of four clips each."""
    for name, first in (("down", 200), ("up", 20)):
        for number in range(4):
            clip(tmp_path / "clips" / name / f"{number}", [first, first + 20, first + 40])
    return tmp_path / "clips"


def arguments(root: Path) -> list[str]:
    return ["dataset=video_folder", f"dataset.images={root}", "dataset.validation_fraction=0"]


def records(built: Manifest) -> dict[str, dict]:
    """The records of a data set by the names of their clips."""
    task = tasks.load("video_classification")
    found = {}
    for shard in built.shards():
        with Path(built.directory, shard.file).open("rb") as file:
            for record in map(task.decode, tfrecord.read(file)):
                found[record["file"]] = record
    return found


def codes(built: Manifest) -> dict[str, str]:
    lines = Path(built.directory, "rejects.jsonl").read_text().splitlines()
    return {entry["file"]: entry["code"] for entry in map(json.loads, lines)}


def test_frames_follow_each_other_by_the_numbers_in_their_names(build: Build, root: Path) -> None:
    clip(root / "up" / "long", list(range(0, 240, 20)))
    (root / "up" / "long" / "Thumbs.db").write_bytes(b"x")
    built = build(*arguments(root))
    assert built.labels == ("down", "up") and built.classes == {"train": {"down": 4, "up": 5}}
    found = records(built)["up/long"]
    assert found["label"] == 1 and found["text"] == "up"
    assert (found["height"], found["width"]) == (24, 32)
    assert np.allclose(levels(found["frames"]), range(0, 240, 20), atol=2)
    names = [f"frame{number}.jpg" for number in range(1, 13)]
    assert found["frames"] == [(root / "up" / "long" / name).read_bytes() for name in names]


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_an_animated_picture_is_a_clip(build: Build, root: Path, ending: str) -> None:
    animation(root / "up" / f"film.{ending}", [0, 60, 120, 180])
    built = build(*arguments(root))
    found = records(built)[f"up/film.{ending}"]
    assert levels(found["frames"]) == [0, 60, 120, 180] and found["format"] == "png"
    assert built.formats == ("jpeg", "png")


def test_what_is_no_clip_is_rejected_by_name_and_nothing_is_lost(build: Build, root: Path) -> None:
    clip(root / "up" / "alone", [7])
    clip(root / "up" / "sizes", [7, 8])
    (root / "up" / "sizes" / "frame2.jpg").write_bytes(frame(8, (16, 16)))
    clip(root / "up" / "cut", [7, 8])
    (root / "up" / "cut" / "frame2.jpg").write_bytes(frame(8)[:-9])
    clip(root / "up" / "words", [7, 8])
    (root / "up" / "words" / "frame3.dat").write_bytes(b"x")
    (root / "up" / "film.mp4").write_bytes(b"x")
    (root / "up" / "still.jpg").write_bytes(frame(9))
    (root / "up" / "broken.gif").write_bytes(b"GIF89a")
    (root / "stray.gif").write_bytes(b"x")
    (root / "up" / "link").symlink_to("/nowhere")
    built = build(*arguments(root), TOLERANT)
    assert codes(built) == {
        "up/alone": "clip_of_one_frame",
        "up/sizes": "frame_size",
        "up/cut": "image_truncated",
        "up/words": "not_an_image",
        "up/film.mp4": "video_file",
        "up/still.jpg": "clip_of_one_frame",
        "up/broken.gif": "clip_unreadable",
        "stray.gif": "unknown_class",
        "up/link": "link_broken",
    }
    assert built.counts["examples_read"] == 17 and built.counts["examples_written"] == 8


def test_a_video_file_is_met_with_the_command_that_takes_it_apart(build: Build, root: Path) -> None:
    (root / "up" / "my film.mp4").write_bytes(b"x")
    command = "mkdir -p 'up/my film' && ffmpeg -i 'up/my film.mp4' -q:v 2 'up/my film/%05d.jpg'"
    with pytest.raises(UsageError) as stopped:
        build(*arguments(root))
    assert command in str(stopped.value)


def test_a_folder_without_classes_says_what_was_expected(build: Build, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="expected <class>/<clip>/<frame>.jpg or <class>/<clip>.g"):
        build(*arguments(tmp_path / "empty"))


def test_a_changed_frame_changes_the_data_set(build: Build, root: Path) -> None:
    before = build(*arguments(root))
    (root / "up" / "0" / "frame3.jpg").write_bytes(frame(3))
    after = build(*arguments(root))
    assert after.fingerprint != before.fingerprint
    assert levels(records(after)["up/0"]["frames"])[2] == 3


def test_records_of_clips_are_adopted_as_they_are(build: Build, root: Path, tmp_path: Path) -> None:
    made = build(*arguments(root))
    shard = tmp_path / "records" / "a.tfrecord"
    shard.parent.mkdir()
    written = Path(made.directory, made.splits["train"].shards[0].file).read_bytes()
    shard.write_bytes(written)
    given = [
        "dataset=tfrecord",
        "dataset.task=video_classification",
        f"dataset.images={{train:'{shard.parent}'}}",
    ]
    adopted = build(*given)
    assert adopted.classes == made.classes and adopted.labels == made.labels
    task = tasks.load("video_classification")
    record = {**next(iter(records(made).values())), "key": "x", "label": 9}
    shard.write_bytes(written + b"".join(tfrecord.frame(task.encode(record))))
    with pytest.raises(UsageError, match="record 8: unknown_class: label 9"):
        build(*given, "dataset.labels=[down,up]")


def test_every_frame_of_a_moving_digit_is_the_one_before_moved(tmp_path: Path) -> None:
    random = np.random.RandomState(3)
    (images, _) = embedded._digits(random)["train"]
    for motion, (down, right) in embedded.MOTIONS.items():
        frames = embedded._clip(random, images[7], motion)
        assert len(frames) == embedded.FRAMES and frames[0].max() > 100
        steps = set()
        for before, after in itertools.pairwise(frames):
            for speed in (2, 3, 4):
                for side in (1, -1):
                    moved = np.roll(before, (speed * down, side * speed * right), axis=(0, 1))
                    if np.array_equal(moved, after):
                        steps.add((speed * down, side * speed * right))
        assert len(steps) == 1


def test_moving_digits_build_from_the_embedded_folder(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "CLIPS", {"train": 12, "validation": 6})
    built = build("dataset=moving_digits")
    assert set(built.labels) == set(embedded.MOTIONS) and built.formats == ("jpeg",)
    assert built.classes["train"] == dict.fromkeys(built.labels, 2)
    assert {len(record["frames"]) for record in records(built).values()} == {8}
