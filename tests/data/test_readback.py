"""What was built is what TensorFlow can read: images by its own decoder, records by Model Garden's, as far as is asked."""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from PIL import Image

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
import tensorflow as tf

import tasks
from pipelines.data import checks, images, manifest, masks, readback
from pipelines.data.example import Rejected
from pipelines.data.manifest import Manifest
from pipelines.system import tfrecord
from pipelines.usage import UsageError
from tasks import _wire
from tests.data.test_rejects import TOLERANT, folder, picture, rejects
from tests.data.test_store import digests, examples

Build = Callable[..., Manifest]


def png(rows: bytes | None) -> bytes:
    """24 rows of 32 pixels by its header, and whatever rows there are."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 32, 24, 8, 2, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(rows))] if rows is not None else []
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [*parts, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def grey(level: int) -> bytes:
    return png((b"\0" + bytes([level]) * 96) * 24)


def jpeg(*, precision: int = 8, marker: int = 0xC0) -> bytes:
    """A baseline JPEG whose frame says something else."""
    content = bytearray(picture(format="JPEG"))
    frame = content.index(b"\xff\xc0")
    content[frame + 1], content[frame + 4] = marker, precision
    return bytes(content)


# By their headers, on the workers.
SEEN_AT_ONCE = {
    "twelve.jpg": (jpeg(precision=12), "image_undecodable"),
    "lossless.jpg": (jpeg(marker=0xC3), "image_undecodable"),
    "hierarchical.jpg": (jpeg(marker=0xC5), "image_undecodable"),
    "without.png": (png(None), "image_undecodable"),
    "half.jpg": (picture(format="JPEG")[:-200], "image_truncated"),
}
# By nobody but TensorFlow.
DECODED = {
    "few.png": png(bytes(10 * 97)),
    "filter.png": png(b"\x09" + bytes(24 * 97 - 1)),
    "scans.jpg": jpeg(marker=0xC2),
}


@pytest.mark.parametrize("name", SEEN_AT_ONCE)
def test_what_a_header_says_no_decoder_reads_is_rejected_by_the_worker(name: str) -> None:
    content, code = SEEN_AT_ONCE[name]
    with pytest.raises(Rejected) as rejected:
        images.read(content)
    assert rejected.value.code == code
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_image(content, channels=3)


def test_images_that_tensorflow_cannot_decode_become_rejects_by_name(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {**{name: content for name, (content, _) in SEEN_AT_ONCE.items()}, **DECODED}
    root = folder(tmp_path / "images", bad, fill=40)
    for number in range(40):
        (root / "a" / f"fine{number}.png").write_bytes(grey(number))
    given = ["dataset=image_folder", f"dataset.images={root}", TOLERANT, "dataset.shards={train:6}"]
    built = build(*given, "dataset.validate=sample")
    expected = {f"a/{name}": code for name, (_, code) in SEEN_AT_ONCE.items()} | {
        f"a/{name}": "image_undecodable" for name in DECODED
    }
    assert {reject["file"]: reject["code"] for reject in rejects(built)} == expected
    assert built.counts["examples_written"] == 40 and built.counts["examples_read"] == 40 + len(bad)
    assert f"TensorFlow cannot decode {len(DECODED)} images; writing " in capsys.readouterr().out
    assert "Invalid PNG data" in next(
        reject["advice"] for reject in rejects(built) if reject["file"] == "a/few.png"
    )
    for split in built.splits:
        for example in examples(built, split):
            tf.io.decode_image(example["image/encoded"][0], channels=3)

    # A shard that is written again later, without TensorFlow, has the same bytes.
    lost = Path(built.directory, built.splits["train"].shards[0].file)
    lost.unlink()
    assert build(*given, "dataset.validate=none") == built and lost.exists()


def test_asking_for_more_than_was_checked_does_the_rest(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "images", {"few.png": DECODED["few.png"]}, fill=30)
    given = ["dataset=image_folder", f"dataset.images={root}", TOLERANT, "dataset.shards={train:4}"]
    unchecked = build(*given, "dataset.validate=none")
    assert (
        unchecked.counts["examples_written"] == 31
        and checks.read(epath.Path(unchecked.directory)).level == "none"
    )
    checked = build(*given, "dataset.validate=full")
    assert checked.directory == unchecked.directory and checked.rejects == {"image_undecodable": 1}
    assert len(set(digests(checked)) - set(digests(unchecked))) == 1
    assert checks.read(epath.Path(checked.directory)).level == "full"
    capsys.readouterr()
    assert build(*given, "dataset.validate=sample") == checked
    assert "checking" not in capsys.readouterr().out


def segmentation(root: Path, count: int = 8) -> list[str]:
    """Pictures with masks of two classes."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        (root / "images" / f"{number}.png").write_bytes(grey(number))
        Image.fromarray(
            np.repeat(np.arange(24, dtype=np.uint8) > 10, 32).reshape(24, 32).astype(np.uint8)
        ).save(root / "masks" / f"{number}.png")
    given = [
        "dataset=mask_folder",
        f"dataset.images={root}/images",
        f"dataset.masks={root}/masks",
        "dataset.labels=[bg,road]",
    ]
    return [*given, "dataset.validation_fraction=0", "dataset.shards={train:1}"]


def with_class(shard: Path, number: int, mask: bytes) -> None:
    """Puts another mask into one record of a shard."""
    with shard.open("rb") as file:
        records = [tasks.load("segmentation").decode(record) for record in tfrecord.read(file)]
    records[number]["mask"] = mask
    encoded = [tasks.load("segmentation").encode(record) for record in records]
    shard.write_bytes(b"".join(part for record in encoded for part in tfrecord.frame(record)))


def test_every_record_is_read_back_when_all_are_asked_for(build: Build, tmp_path: Path) -> None:
    given = segmentation(tmp_path)
    built = build(*given)
    shard = Path(built.directory, built.splits["train"].shards[0].file)
    before = hashlib.sha256(shard.read_bytes()).hexdigest()
    # As if our own code had written a class that there is not, beyond the sample.
    with_class(shard, 6, masks.encode_classes(np.full((24, 32), 77, np.uint8)))
    (tmp_path / "manifest.json").write_text(
        built.to_json().replace(before, hashlib.sha256(shard.read_bytes()).hexdigest())
    )
    document = json.loads((tmp_path / "manifest.json").read_text())
    document["splits"]["train"]["shards"][0]["bytes"] = shard.stat().st_size
    Path(built.directory, "manifest.json").write_text(json.dumps(document))
    with shard.open("rb") as file:
        manifest.lengths_file(epath.Path(shard)).write_bytes(
            tfrecord.as_bytes(tfrecord.lengths(file))
        )
    build(*given, "dataset.validate=sample")
    with pytest.raises(
        UsageError, match=r"train-00000-of-00001.tfrecord record 6: classes \[77\] of 2"
    ):
        build(*given, "dataset.validate=full")


def test_adopted_masks_are_checked_and_their_pixels_counted(build: Build, tmp_path: Path) -> None:
    made = build(*segmentation(tmp_path))
    shard = tmp_path / "records" / "a.tfrecord"
    shard.parent.mkdir()
    shard.write_bytes(Path(made.directory, made.splits["train"].shards[0].file).read_bytes())
    given = [
        "dataset=tfrecord",
        "dataset.task=segmentation",
        f"dataset.images={{train:'{shard.parent}'}}",
    ]
    adopted = build(*given, "dataset.labels=[bg,road]")
    assert (
        adopted.classes == made.classes == {"train": {"bg": 8 * 11 * 32, "road": 8 * 13 * 32}}
        and adopted.warnings == ()
    )
    with pytest.raises(UsageError, match=r"dataset.labels=\[background"):
        build(*given)
    for mask, says in (
        (
            masks.encode_classes(np.full((24, 32), 77, np.uint8)),
            r"record 6: unknown_class: pixel values \[77\]",
        ),
        (
            masks.encode_classes(np.full((4, 4), 1, np.uint8)),
            "record 6: mask_size: the mask is 4x4, the image 32x24",
        ),
        (b"nonsense", "record 6: mask_unreadable"),
    ):
        with_class(shard, 6, mask)
        with pytest.raises(UsageError, match=says):
            build(*given, "dataset.labels=[bg,road]")


def test_adopted_object_masks_of_other_values_than_zero_and_one_stop_the_adoption(
    build: Build, tmp_path: Path
) -> None:
    item = {"box": (0.25, 0.5, 0.75, 1.0), "label": 1, "text": "b", "area": 100.5, "is_crowd": 0}
    image = png(bytes(24 * 97))
    head = {
        "file": "a.png",
        "id": 7,
        "image": image,
        "sha256": hashlib.sha256(image).hexdigest(),
        "format": "png",
        "height": 24,
        "width": 32,
    }
    shard = tmp_path / "records" / "a.tfrecord"
    shard.parent.mkdir()
    painted = masks.encode_classes(np.full((24, 32), 255, np.uint8))
    shard.write_bytes(
        b"".join(
            tfrecord.frame(
                tasks.load("detection").encode({**head, "objects": [{**item, "mask": painted}]})
            )
        )
    )
    with pytest.raises(
        UsageError,
        match="mask_malformed: a mask has the value 255; an object's pixels are 1, all others 0",
    ):
        build(
            "dataset=tfrecord",
            "dataset.task=detection",
            f"dataset.images={{train:'{shard.parent}'}}",
        )


def test_adopted_images_that_cannot_be_decoded_are_named(build: Build, tmp_path: Path) -> None:
    content = DECODED["few.png"]
    head = {
        "file": "few.png",
        "id": 7,
        "image": content,
        "sha256": "",
        "format": "png",
        "height": 24,
        "width": 32,
    }
    shard = tmp_path / "records" / "a.tfrecord"
    shard.parent.mkdir()
    shard.write_bytes(
        b"".join(
            tfrecord.frame(tasks.load("classification").encode({**head, "label": 0, "text": "a"}))
        )
    )
    assert _wire.parse(next(tfrecord.read(shard.open("rb"))))["image/encoded"] == [content]
    with pytest.raises(
        UsageError, match=r"train-00000-of-00001.tfrecord record 0 \(few.png\): Invalid PNG data"
    ):
        build(
            "dataset=tfrecord",
            "dataset.task=classification",
            f"dataset.images={{train:'{shard.parent}'}}",
            "dataset.validate=sample",
        )


def test_only_pictures_out_of_the_ordinary_are_for_tensorflow(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readback, "READER", "no.such.module")  # Starting it would fail.
    root = folder(tmp_path / "images", {"b.jpg": picture(format="JPEG")}, fill=9)
    given = ["dataset=image_folder", f"dataset.images={root}", "dataset.shards={train:2}"]
    built = build(*given, "dataset.validate=sample")
    assert checks.read(epath.Path(built.directory)).level == "sample"
    (root / "a" / "c.bmp").write_bytes(picture(format="BMP"))
    with pytest.raises(RuntimeError, match=r"no.such.module"):
        build(*given, "dataset.validate=sample")


def test_a_sample_of_every_shard_is_read_from_the_disk(build: Build, tmp_path: Path) -> None:
    task = tasks.load("segmentation")
    built = build(*segmentation(tmp_path))
    shard = Path(built.directory, built.splits["train"].shards[0].file)
    whole = shard.read_bytes()
    assert list(readback._problems(built, task)) == []
    with_class(shard, 2, masks.encode_classes(np.full((24, 32), 77, np.uint8)))
    (line,) = readback._problems(built, task)
    assert line.startswith(f"{shard.name} record 2: ") and "pixel values [77]" in line
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    (line,) = readback._problems(built, task)
    assert line.startswith(f"{shard.name} record 0: record at byte 0 is cut short or corrupt")
