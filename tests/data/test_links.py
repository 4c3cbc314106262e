"""Links, patterns and odd names: followed within the folders that are named, else rejected by name; no class vanishes."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.data import folders
from pipelines.data.manifest import Manifest
from pipelines.usage import UsageError
from tests.data.conftest import coco, coco_at
from tests.data.test_sources import picture, voc

Build = Callable[..., Manifest]
TOLERANT = "dataset.max_reject_fraction=1"


def rejects(built: Manifest) -> dict[str, str]:
    """Code by file."""
    lines = (Path(built.directory) / "rejects.jsonl").read_text().splitlines()
    return {reject["file"]: reject["code"] for reject in map(json.loads, lines)}


def flowers(folder: Path, *classes: str, count: int = 6) -> Path:
    for number, name in enumerate(classes):
        for place in range(count):
            picture(folder / name / f"{place}.png", colour=20 * number + place)
    return folder


def test_a_linked_class_folder_elsewhere_is_named_and_its_class_stays(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = flowers(tmp_path / "flowers", "rose")
    flowers(tmp_path / "elsewhere", "tulip")
    (root / "tulip").symlink_to(tmp_path / "elsewhere" / "tulip")
    given = ["dataset=image_folder", f"dataset.images={root}"]
    with pytest.raises(
        UsageError,
        match=f"1 path_escapes, as tulip record tulip: the link leads to the folder {tmp_path}",
    ):
        build(*given)
    built = build(*given, TOLERANT)
    assert built.labels == ("rose", "tulip") and rejects(built) == {"tulip": "path_escapes"}
    assert "nothing of class tulip" in capsys.readouterr().out
    whole = build(*given, f"dataset.root={tmp_path}")
    assert whole.counts["examples_written"] == 12 and not whole.rejects
    assert whole.classes["train"].keys() == {"rose", "tulip"}


def test_links_within_the_folder_are_followed(build: Build, tmp_path: Path) -> None:
    root = flowers(tmp_path / "flowers", "rose", ".store/tulip")
    (root / "tulip").symlink_to(root / ".store" / "tulip")
    (root / "rose" / "again.png").symlink_to("0.png")
    built = build("dataset=image_folder", f"dataset.images={root}")
    assert (
        built.labels == ("rose", "tulip")
        and built.counts["examples_written"] == 13
        and not built.rejects
    )


def test_links_that_lead_nowhere_or_in_circles_are_rejected_by_name(
    build: Build, tmp_path: Path
) -> None:
    root = flowers(tmp_path / "flowers", "rose")
    (root / "rose" / "broken.png").symlink_to(tmp_path / "gone.png")
    (root / "rose" / "loop.png").symlink_to("loop.png")
    (root / "rose" / "up").symlink_to("..")
    (root / "lily").symlink_to(tmp_path / "gone")
    os.mkfifo(root / "rose" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "rose" / "s.png"))
        built = build("dataset=image_folder", f"dataset.images={root}", TOLERANT)
    assert rejects(built) == {
        "rose/broken.png": "link_broken",
        "rose/loop.png": "link_loop",
        "rose/up": "link_loop",
        "rose/pipe.png": "not_a_file",
        "rose/s.png": "not_a_file",
        "lily": "link_broken",
    }
    assert built.labels == ("lily", "rose") and built.counts["examples_read"] == 12


def test_links_between_two_folders_end(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / one).mkdir()
        (tmp_path / one / "file").write_text("")
        (tmp_path / one / "to").symlink_to(tmp_path / other)
    found = folders.contents(str(tmp_path), [])
    assert set(found.files) == {"a/file", "a/to/file", "b/file", "b/to/file"}
    assert {name: code for name, (code, _) in found.unfit.items()} == {
        "a/to/to": "link_loop",
        "b/to/to": "link_loop",
    }


def test_an_annotated_image_behind_a_bad_link_says_so(build: Build, tmp_path: Path) -> None:
    file, document = coco(tmp_path / "images", 12)
    for number, target in ((1, tmp_path / "gone.jpg"), (2, file)):
        (tmp_path / "images" / f"{number:03d}.jpg").unlink()
        (tmp_path / "images" / f"{number:03d}.jpg").symlink_to(target)
    (tmp_path / "apart").mkdir()
    (tmp_path / "images" / "003.jpg").rename(tmp_path / "apart" / "003.jpg")
    (tmp_path / "images" / "apart").symlink_to(tmp_path / "apart")
    document["images"][2]["file_name"] = "apart/003.jpg"
    document["images"][3]["file_name"] = ""
    document["images"][4]["file_name"] = f"{tmp_path}/images/005.jpg"
    file.write_text(json.dumps(document))
    given = [
        *coco_at(file),
        TOLERANT,
    ]
    built = build(*given)
    found = rejects(built)
    assert found.pop(f"{tmp_path}/images/005.jpg") == "path_escapes"
    assert found == {
        "001.jpg": "link_broken", "002.jpg": "path_escapes", "apart/003.jpg": "path_escapes", "(no file_name)": "image_missing",
    }  # fmt: skip
    assert built.counts["objects_of_rejected_examples"] == 15
    assert "apart/003.jpg" not in rejects(build(*given, f"dataset.root={tmp_path}"))


def test_a_mask_that_links_out_of_its_folder_is_rejected(build: Build, tmp_path: Path) -> None:
    for number in range(6):
        picture(tmp_path / "images" / f"{number}.png", colour=number)
        picture(tmp_path / "masks" / f"{number}.png", mode="L", colour=1)
    picture(tmp_path / "outside.png", mode="L", colour=1)
    (tmp_path / "masks" / "1.png").unlink()
    (tmp_path / "masks" / "1.png").symlink_to(tmp_path / "outside.png")
    (tmp_path / "masks" / "9.png").symlink_to(tmp_path / "outside.png")
    picture(tmp_path / "masks" / "2.bmp", mode="L", colour=1)
    places = [f"dataset.{field}={tmp_path}/{field}" for field in ("images", "masks")]
    built = build("dataset=mask_folder", *places, "dataset.labels=[background,thing]", TOLERANT)
    assert rejects(built) == {
        "1.png": "path_escapes",
        "9.png": "path_escapes",
        "2.bmp": "mask_ambiguous",
    }


def test_an_annotation_that_links_out_of_its_folder_is_rejected(
    build: Build, tmp_path: Path
) -> None:
    root = voc(tmp_path / "voc")
    (root / "Annotations" / "1.xml").rename(tmp_path / "1.xml")
    (root / "Annotations" / "1.xml").symlink_to(tmp_path / "1.xml")
    (root / "JPEGImages" / "2.jpg").unlink()
    (root / "JPEGImages" / "2.jpg").symlink_to("2.jpg")
    picture(root / "JPEGImages" / "3.png")
    built = build("dataset=voc", f"dataset.root={root}", "dataset.labels=[cat,dog,cow]", TOLERANT)
    codes = {name: code for name, code in rejects(built).items() if code != "box_empty"}
    assert codes.pop("99") == "image_missing" and set(codes.values()) == {
        "path_escapes",
        "link_loop",
        "image_ambiguous",
    }
    assert built.counts["objects_of_rejected_examples"] == 6  # The annotation outside was not read.


def test_a_repaired_link_is_other_data(build: Build, tmp_path: Path) -> None:
    root = flowers(tmp_path / "flowers", "rose")
    (root / "rose" / "late.png").symlink_to("early.png")
    before = build("dataset=image_folder", f"dataset.images={root}", TOLERANT)
    (root / "rose" / "late.png").unlink()
    without = build("dataset=image_folder", f"dataset.images={root}", TOLERANT)
    assert before.rejects and not without.rejects and before.fingerprint != without.fingerprint


@pytest.mark.parametrize("name", ["my photos [2021]", "*", "a\nb", "who?"])
def test_a_folder_is_a_folder_whatever_its_name(build: Build, tmp_path: Path, name: str) -> None:
    root = flowers(tmp_path / name, "rose", "tulip [red]")
    text = str(root).replace("\\", "\\\\")
    assert (
        build("dataset=image_folder", f"dataset.images='{text}'").counts["examples_written"] == 12
    )


def test_a_pattern_where_none_can_be_used_is_refused(build: Build, tmp_path: Path) -> None:
    flowers(tmp_path / "flowers", "rose")
    with pytest.raises(
        UsageError,
        match=r"flow\*: there is no such file or folder, and only dataset=tfrecord takes a pattern",
    ):
        build("dataset=image_folder", f"dataset.images='{tmp_path}/flow*'")
    (tmp_path / "dead").symlink_to("away")
    with pytest.raises(UsageError, match=r"dead: the link leads nowhere \(away\)"):
        build("dataset=image_folder", f"dataset.images={tmp_path}/dead")


def test_patterns_may_be_in_the_folders(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    made = build(*coco_at(file))
    for number, shard in enumerate(sorted(Path(made.directory).glob("*.tfrecord"))):
        folder = tmp_path / "parts [x]" / f"part{number}"
        folder.mkdir(parents=True)
        (folder / "train-0.tfrecord").write_bytes(shard.read_bytes())
    given = ["dataset=tfrecord", f"dataset.images={{train:'{tmp_path}/parts [x]/part*/train-*'}}"]
    adopted = build(*given)
    assert adopted.counts["examples_read"] == adopted.counts["examples_written"] == 10
    assert adopted.counts["objects_read"] == adopted.counts["objects_written"] == 30
    (tmp_path / "parts [x]" / "part0" / "train-1.tfrecord").symlink_to("gone")
    with pytest.raises(
        UsageError,
        match="part0/train-1.tfrecord: the link leads to gone, where nothing can be read",
    ):
        build(*given)


BESIDE = ["README.txt", "rose/Thumbs.db", "rose/LICENSE", "notes/todo.md", "rose/.DS_Store"]


def test_files_that_are_no_images_by_name_are_ballast(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = flowers(tmp_path / "flowers", "rose", "tulip", count=20)
    for name in BESIDE:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("text")
    given = ["dataset=image_folder", f"dataset.images={root}"]
    built = build(*given)
    assert built.labels == ("rose", "tulip") and not built.rejects
    assert built.counts["ballast_files"] == 4 and built.counts["examples_read"] == 40
    assert (
        "4 files are no images by name and were left aside: README.txt, notes/todo.md, rose/LICENSE and 1 more"
        in (capsys.readouterr().out)
    )
    (root / "rose" / "photo.heic").write_bytes(b"an image that cannot be read")
    with pytest.raises(UsageError, match="1 not_an_image, as rose/photo.heic"):
        build(*given)


def test_names_from_data_are_cut_and_spelled_out(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, document = coco(tmp_path / "images", 12)
    names = ["\x1b[2J\nred", "x" * 10_000]
    document["categories"] += [{"id": 20 + place, "name": name} for place, name in enumerate(names)]
    document["images"][0]["file_name"] = "\x1b]0;title\x07" + "y" * 10_000
    file.write_text(json.dumps(document))
    built = build(*coco_at(file), TOLERANT)
    out, lines = capsys.readouterr().out, (Path(built.directory) / "rejects.jsonl").read_text()
    assert "\x1b" not in out + lines and "\\x1b[2J\\nred" in out and "xx…" in out
    assert max(map(len, (out + lines).splitlines())) < 1500
    assert list(built.labels[2:]) == names


def test_ids_that_are_no_short_numbers_are_counted(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, document = coco(tmp_path / "images")
    fresh: dict[int, Any] = {1: "one", 2: 2**70, 3: -4}
    for entry in (*document["images"], *document["annotations"]):
        field = "image_id" if "image_id" in entry else "id"
        entry[field] = fresh.get(entry[field], entry[field])
    file.write_text(json.dumps(document))
    built = build(*coco_at(file))
    assert built.counts["ids_hashed"] == 3 and built.counts["objects_written"] == 30
    assert "3 image ids are no whole numbers of up to 15 digits" in capsys.readouterr().out
