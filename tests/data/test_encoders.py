"""What encodes is known by its bytes, which a fingerprint covers; golden digests say when they change."""

import dataclasses
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import Dataset, compose
from pipelines.data import build as building
from pipelines.data import content, encoders, images, masks
from pipelines.data.manifest import Manifest
from pipelines.usage import UsageError
from tests import golden
from tests.data.conftest import coco, coco_at

Build = Callable[..., Manifest]
GOLDEN = golden.FOLDER / "encoders.txt"
CONVERSIONS = [
    (trait, name)
    for trait, names in images.TREATMENTS.items()
    for name in names
    if name not in encoders.AS_IT_IS
]
# What of the libraries can change an encoder's bytes.
OURS = ("zlib", "pycocotools")
PILLOWS = ("pillow", "pillow's libjpeg_turbo", "pillow's webp")


def made() -> dict[str, str]:
    """`<encoder>  <libraries>` with the digest of its bytes here."""
    found = {
        "class masks": (OURS[:1], encoders.class_masks()),
        "object masks": (OURS, encoders.object_masks()),
    }
    found |= {
        f"convert {trait} to {name}": (PILLOWS, encoders.conversion(trait, name))
        for trait, name in CONVERSIONS
    }
    versions = encoders.libraries()
    lines = {}
    for name, (used, digest) in found.items():
        libraries = ", ".join(f"{library} {versions[library]}" for library in used)
        lines[f"{name} | {libraries}"] = digest
    return lines


def known() -> dict[str, str]:
    return dict(line.rsplit(" | ", 1) for line in GOLDEN.read_text().splitlines())


def test_each_encoder_makes_the_bytes_that_are_on_record() -> None:
    here = made()
    before = known() if GOLDEN.exists() else {}
    if golden.RENEW:
        text = "".join(f"{name} | {digest}\n" for name, digest in {**before, **here}.items())
        assert golden.changes(GOLDEN.name, text) == ""
    on_record = known()
    unknown = [f"{name} | {digest}" for name, digest in here.items() if name not in on_record]
    if unknown:
        warnings.warn(
            "no digest on record for these libraries; `make golden` adds to tests/golden/encoders.txt:\n"
            + "\n".join(unknown),
            stacklevel=1,
        )
    assert {
        name: digest for name, digest in here.items() if on_record.get(name, digest) != digest
    } == {}
    assert {name.split(" | ")[0] for name in here} == {name.split(" | ")[0] for name in on_record}


@pytest.mark.parametrize(
    ("overrides", "uses"),
    [
        (["dataset=digits"], []),
        (
            ["dataset=image_folder", "dataset.convert={webp:jpeg,cmyk:keep}"],
            ["convert webp to jpeg"],
        ),
        (["dataset=digit_masks"], ["class masks"]),
        (["dataset=coco"], ["object masks"]),
        (["dataset=coco", "dataset.include_masks=false"], []),
        (["dataset=voc"], []),
        (["dataset=video_folder"], ["frames of animated pictures"]),
        (["dataset=tfrecord", "dataset.task=segmentation"], []),
    ],
)
def test_only_the_encoders_that_a_data_set_uses_are_its_own(
    overrides: list[str], uses: list[str]
) -> None:
    dataset = compose(overrides).dataset
    assert dataset is not None and list(encoders.used(dataset)) == uses


def recipe(**more: object) -> str:
    dataset = compose(["dataset=image_folder", "dataset.convert={webp:jpeg}"]).dataset
    assert dataset is not None
    return content.recipe(dataclasses.replace(dataset, **more), 1)


def test_another_quality_or_compression_is_another_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, masked = recipe(), recipe(task="segmentation")
    # Another library is stood for by another setting of the real one: other bytes of the same pixels.
    compress = zlib.compress
    monkeypatch.setattr(masks.zlib, "compress", lambda rows, level: compress(rows, 2))
    encoders.class_masks.cache_clear()
    assert recipe() == plain and recipe(task="segmentation") != masked
    monkeypatch.setattr(images, "QUALITY", 80)
    encoders.conversion.cache_clear()
    assert recipe() != plain
    monkeypatch.undo()
    encoders.class_masks.cache_clear()
    encoders.conversion.cache_clear()
    assert (recipe(), recipe(task="segmentation")) == (plain, masked)


def test_other_bytes_are_other_data_and_never_beside_the_first(
    build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, _ = coco(tmp_path / "images", 30)
    overrides = [
        *coco_at(file),
        "dataset.shards={train:4}",
    ]
    one = build(*overrides)
    monkeypatch.setattr(masks, "PALETTE", b"\x00\x00\x00\x01\x01\x02")
    encoders.object_masks.cache_clear()
    other = build(*overrides)
    assert other.directory != one.directory and other.encoders != one.encoders
    assert "are as they were" not in capsys.readouterr().out
    before = {shard.sha256 for shard in one.splits["train"].shards}
    assert before.isdisjoint(shard.sha256 for shard in other.splits["train"].shards)
    monkeypatch.undo()
    encoders.object_masks.cache_clear()


def test_a_worker_that_encodes_otherwise_stops_the_build(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = coco(tmp_path / "images")
    job = building.Job
    monkeypatch.setattr(
        building,
        "Job",
        lambda **fields: job(**{**fields, "encoders": {"object masks": "elsewhere"}}),
    )
    with pytest.raises(
        UsageError,
        match=r"worker \S+ encodes otherwise than where the build was started \(object masks\); it has zlib [\d.]+",
    ):
        build(*coco_at(file))


@pytest.mark.parametrize("changed", ["images/003.jpg", "images.json"])
def test_a_file_that_changes_while_it_is_built_from_stops_the_build(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    annotations, _ = coco(tmp_path / "images")
    overrides = [
        *coco_at(annotations),
    ]
    file = tmp_path / changed
    whole, find = file.read_bytes(), content.find

    def found(data_dir: str, dataset: Dataset) -> content.Found:
        listed = find(data_dir, dataset)
        file.write_bytes(
            whole + b" "
            if changed.endswith("json")
            else (tmp_path / "images" / "004.jpg").read_bytes()
        )
        return listed

    monkeypatch.setattr(content, "find", found)
    with pytest.raises(UsageError, match=rf"{file}: it has changed since it was listed"):
        build(*overrides)
    monkeypatch.undo()
    assert not list((tmp_path / "data").glob("coco-*/manifest.json"))
    file.write_bytes(whole)
    assert build(*overrides).counts["examples_rejected"] == 0


def test_digests_of_encoders_need_no_tensorflow_and_little_time() -> None:
    code = "import sys; from pipelines.data import encoders; encoders.class_masks(); encoders.object_masks(); print({'tensorflow', 'apache_beam'} & set(sys.modules))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "set()\n"
    )


def test_masks_of_probes_decode_to_their_pixels() -> None:
    classes = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert (masks.read_classes(masks.encode_classes(classes)) == classes).all()
