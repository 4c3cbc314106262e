"""Nothing is lost silently: every input is in a shard or in rejects.jsonl, with a reason."""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.data import images
from pipelines.data.example import Rejected
from pipelines.data.manifest import Manifest
from pipelines.usage import UsageError
from tests.data.conftest import coco, coco_at, save

Build = Callable[..., Manifest]
TOLERANT = "dataset.max_reject_fraction=1"


def rejects(built: Manifest) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (Path(built.directory) / "rejects.jsonl").read_text().splitlines()
    ]


def codes(built: Manifest) -> list[str]:
    return [reject["code"] for reject in rejects(built)]


def add_up(built: Manifest) -> bool:
    counts = built.counts
    return (
        counts["examples_read"] == counts["examples_written"] + counts["examples_rejected"]
        and counts["objects_read"]
        == counts["objects_written"]
        + counts["objects_rejected"]
        + counts["objects_of_rejected_examples"]
        and counts["examples_written"] == sum(split.examples for split in built.splits.values())
        and sum(built.rejects.values())
        == counts["examples_rejected"] + counts["objects_rejected"]
        == len(rejects(built))
    )


BROKEN_OBJECTS: dict[str, tuple[dict[str, Any], str]] = {
    "zero width": ({"bbox": [4, 4, 0, 5]}, "box_empty"),
    "negative height": ({"bbox": [4, 4, 5, -3]}, "box_empty"),
    "not a number": ({"bbox": [4, float("nan"), 5, 5]}, "box_malformed"),
    "infinite": ({"bbox": [4, 4, float("inf"), 5]}, "box_malformed"),
    "three numbers": ({"bbox": [4, 4, 5]}, "box_malformed"),
    "text": ({"bbox": ["4", 4, 5, 5]}, "box_malformed"),
    "absent box": ({"bbox": None}, "box_malformed"),
    "outside": ({"bbox": [100, 4, 5, 5]}, "box_outside"),
    "unknown category": ({"category_id": 99}, "unknown_category"),
    "no category": ({"category_id": None}, "unknown_category"),
    "two points": ({"segmentation": [[1, 2, 3, 4]]}, "mask_malformed"),
    "polygon of text": ({"segmentation": [["a", 2, 3, 4, 5, 6]]}, "mask_malformed"),
    "polygon far away": ({"segmentation": [[1e30, 2, 3, 4, 5, 6]]}, "mask_malformed"),
    "polygon outside": ({"segmentation": [[100, 100, 110, 100, 110, 110]]}, "mask_empty"),
    "runs do not add up": (
        {"segmentation": {"size": [24, 32], "counts": [1, 2]}},
        "mask_malformed",
    ),
    "runs of another size": (
        {"segmentation": {"size": [48, 32], "counts": [0, 1536]}},
        "mask_size",
    ),
    "compressed nonsense": (
        {"segmentation": {"size": [24, 32], "counts": "zzzzzz~~~~"}},
        "mask_malformed",
    ),
    "no mask": ({"segmentation": []}, "mask_missing"),
}


def test_every_broken_object_is_rejected_with_its_reason(build: Build, tmp_path: Path) -> None:
    _, document = coco(tmp_path / "images", 30)
    for annotation, (broken, _) in zip(
        document["annotations"], BROKEN_OBJECTS.values(), strict=False
    ):
        annotation.update(broken)
    file = save(tmp_path / "images", document)
    built = build(*coco_at(file), TOLERANT)
    by_record = {reject["record"]: reject["code"] for reject in rejects(built)}
    expected = {
        str(annotation["id"]): code
        for annotation, (_, code) in zip(
            document["annotations"], BROKEN_OBJECTS.values(), strict=False
        )
    }
    assert by_record == expected
    assert add_up(built) and built.counts["objects_read"] == 90
    assert all(reject["advice"] and reject["file"] for reject in rejects(built))


def test_overhanging_boxes_are_clipped_and_counted(build: Build, tmp_path: Path) -> None:
    _, document = coco(tmp_path / "images")
    document["annotations"][0]["bbox"] = [-4, 4, 16, 100]
    file = save(tmp_path / "images", document)
    built = build(*coco_at(file))
    assert built.counts["boxes_clipped"] == 1 and not built.rejects


def test_annotations_that_belong_nowhere_are_rejected(build: Build, tmp_path: Path) -> None:
    _, document = coco(tmp_path / "images", 20)
    document["annotations"][1]["id"] = document["annotations"][0]["id"]
    document["annotations"][4]["image_id"] = 999
    document["annotations"][5]["image_id"] = [1]
    document["annotations"].append("nonsense")
    document["images"].append(dict(document["images"][0]))
    document["images"].append({"file_name": "x.jpg"})
    file = save(tmp_path / "images", document)
    built = build(*coco_at(file), TOLERANT)
    assert sorted(codes(built)) == ["annotation_malformed"] * 2 + [
        "duplicate_annotation_id",
        "duplicate_image_id",
        "image_malformed",
        "unknown_image",
    ]
    assert (
        add_up(built) and built.counts["examples_read"] == 22 and built.counts["objects_read"] == 61
    )


def picture(mode: str = "RGB", **how: Any) -> bytes:
    file = io.BytesIO()
    pixels = np.random.RandomState(0).randint(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, **{"format": "PNG", **how})
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def corrupt(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def bomb() -> bytes:
    header = picture()
    size = struct.pack(">II", 60_000, 60_000) + header[24:29]
    return header[:16] + size + struct.pack(">I", zlib.crc32(b"IHDR" + size)) + header[33:]


BROKEN_IMAGES = {
    "empty.png": (b"", "image_empty"),
    "text.jpg": (b"no picture", "image_unreadable"),
    "cut.png": (picture()[:-40], "image_truncated"),
    "cut.jpg": (picture(format="JPEG")[:-40], "image_truncated"),
    "header.jpg": (b"\xff\xd8\xff", "image_truncated"),
    "flipped.png": (corrupt(picture()), "image_corrupt"),
    "marker.jpg": (b"\xff\xd8\x00\x00\x00\x00", "image_corrupt"),
    "bomb.png": (bomb(), "image_too_large"),
    "film.gif": (picture(format="GIF"), "image_gif"),
    "web.webp": (picture(format="WEBP"), "image_webp"),
    "scan.tif": (picture(format="TIFF"), "image_tiff"),
    "film.mp4": (b"film", "not_an_image"),
}


def folder(root: Path, files: dict[str, bytes], fill: int = 12) -> Path:
    (root / "a").mkdir(parents=True)
    for number in range(fill):
        (root / "a" / f"fine{number}.png").write_bytes(picture())
    for name, content in files.items():
        (root / "a" / name).write_bytes(content)
    return root


def test_every_broken_image_is_rejected_with_its_reason(build: Build, tmp_path: Path) -> None:
    root = folder(
        tmp_path / "images", {name: content for name, (content, _) in BROKEN_IMAGES.items()}
    )
    (tmp_path / "outside.png").write_bytes(picture())
    (root / "a" / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "stray.png").write_bytes(picture())
    with open(os.fsencode(root / "a") + b"/caf\xe9.png", "wb") as file:
        file.write(picture())
    built = build("dataset=image_folder", f"dataset.images={root}", TOLERANT)
    found = {os.path.basename(reject["file"]): reject["code"] for reject in rejects(built)}
    expected = {name: code for name, (_, code) in BROKEN_IMAGES.items()}
    assert found == expected | {
        "link.png": "path_escapes",
        "stray.png": "unknown_class",
        "caf\udce9.png": "file_name_not_utf8",
    }
    assert add_up(built) and built.counts["examples_written"] == 12


def test_missing_images_and_wrong_sizes_take_their_objects_with_them(
    build: Build, tmp_path: Path
) -> None:
    _, document = coco(tmp_path / "images", 20)
    (tmp_path / "images" / "003.jpg").unlink()
    document["images"][4]["width"] = 640
    document["images"][5]["file_name"] = "../images/006.jpg"
    document["images"][6]["file_name"] = "/etc/hostname"
    file = save(tmp_path / "images", document)
    built = build(*coco_at(file), TOLERANT)
    assert sorted(codes(built)) == ["image_missing", "image_size", "path_escapes", "path_escapes"]
    assert add_up(built)


def test_too_many_rejects_stop_the_build_and_say_how_to_go_on(build: Build, tmp_path: Path) -> None:
    root = folder(tmp_path / "images", {"empty.png": b""})
    with pytest.raises(
        UsageError,
        match=r"7\.7% of the examples \(1 of 13\) were rejected, .* allows 1\.0%:\n  1 image_empty, as a/empty.png .*: the file has zero bytes.*\n.*rejects.jsonl\n.*max_reject_fraction=0.08",
    ):
        build("dataset=image_folder", f"dataset.images={root}")
    assert (
        next((tmp_path / "data").glob("image_folder-*/rejects.jsonl")).read_text().count("\n") == 1
    )
    assert not list((tmp_path / "data").glob("image_folder-*/manifest.json"))
    built = build(
        "dataset=image_folder", f"dataset.images={root}", "dataset.max_reject_fraction=0.08"
    )
    assert built.counts["examples_rejected"] == 1
    with pytest.raises(UsageError, match="max_reject_fraction"):
        build("dataset=image_folder", f"dataset.images={root}")


TRAITS = {
    "exif_rotation": (picture(format="JPEG", exif=exif(6)), "apply", (32, 24)),
    "cmyk": (picture("CMYK", format="JPEG"), "jpeg", (24, 32)),
    "palette": (picture("P"), "png", (24, 32)),
    "alpha": (picture("RGBA"), "png", (24, 32)),
    "bmp": (picture(format="BMP"), "jpeg", (24, 32)),
    "gif": (picture(format="GIF"), "png", (24, 32)),
    "webp": (picture(format="WEBP"), "png", (24, 32)),
    "tiff": (picture(format="TIFF"), "png", (24, 32)),
}


@pytest.mark.parametrize("trait", TRAITS)
def test_a_trait_is_converted_only_when_asked(trait: str) -> None:
    content, treatment, shape = TRAITS[trait]
    inspected = images.inspect(content)
    assert trait in inspected.traits
    if images.TREATMENTS[trait][0] == "keep":
        assert images.read(content).content == content
    else:
        with pytest.raises(Rejected, match=f"dataset.convert={{{trait}:{treatment}}}"):
            images.read(content)
    converted = images.read(content, {trait: treatment})
    assert (
        converted.content != content
        and converted.traits == ()
        and (converted.height, converted.width) == shape
    )
    assert np.asarray(Image.open(io.BytesIO(converted.content))).shape == (*shape, 3)


def test_sixteen_bits_are_reduced_to_the_high_byte_when_asked() -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((2, 3), 0xABCD, np.uint16)).save(file, "PNG")
    assert images.inspect(file.getvalue()).traits == ("sixteen_bit",)
    converted = images.read(file.getvalue(), {"sixteen_bit": "png"})
    assert np.unique(np.asarray(Image.open(io.BytesIO(converted.content)))).tolist() == [0xAB]


def test_an_unknown_treatment_is_refused(build: Build, tmp_path: Path) -> None:
    root = folder(tmp_path / "images", {})
    with pytest.raises(
        UsageError, match="dataset.convert.gif: no treatment 'avif'; there are: reject, png, jpeg"
    ):
        build("dataset=image_folder", f"dataset.images={root}", "dataset.convert={gif:avif}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON at byte 0"),
        ("[]", "expected '{'"),
        ("{}", "no images"),
        ('{"images": [], "categories": []}', "no annotations; it lists 0 images"),
        (
            '{"images": [{"id": 1, "file_name": "001.jpg"}], "categories": [{"id": 1, "name": "a"}], "annotations": [{"id": 1',
            "not JSON at byte 1.*is the file whole",
        ),
        ('{"images": [], "categories": [{"id": "x", "name": "a"}]}', "no whole number as id"),
    ],
)
def test_a_broken_annotation_file_is_named_with_the_byte(
    build: Build, tmp_path: Path, text: str, message: str
) -> None:
    coco(tmp_path / "images", 1)
    file = tmp_path / "images.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        build(*coco_at(file))
