"""Every source gives records that say what it said."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.manifest import Manifest
from pipelines.usage import UsageError
from tests.data import bucket
from tests.data.conftest import coco, coco_at, coco_panoptic, save
from tests.data.test_store import digests, examples, lengths

Build = Callable[..., Manifest]


def picture(
    file: Path, size: tuple[int, int] = (32, 24), mode: str = "RGB", colour: int = 0
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(file)
    return file


def test_csv_takes_labels_splits_and_groups_from_columns(build: Build, tmp_path: Path) -> None:
    lines = ["file,kind,part,patient"]
    for number in range(12):
        picture(tmp_path / "images" / f"{number}.png", colour=number)
        lines.append(
            f"{number}.png,{'ab'[number % 2]},{'val' if number > 8 else 'train'},{number // 4}"
        )
    (tmp_path / "table.csv").write_text(
        "\n".join(
            [
                *lines,
                "missing.png,a,train,1",
                "../x.png,a,train,1",
                "1.png,a,train,1",
                "2.png,,train,1",
            ]
        )
    )
    columns = "dataset.columns={path:file,label:kind,split:part,group:null}"
    given = [
        "dataset=csv",
        f"dataset.images={tmp_path}/images",
        f"dataset.annotations={tmp_path}/table.csv",
        "dataset.max_reject_fraction=1",
    ]
    built = build(*given, columns)
    assert built.labels == ("a", "b")
    assert {name: split.examples for name, split in built.splits.items()} == {
        "train": 9,
        "validation": 3,
    }
    assert built.rejects == {
        "image_missing": 1,
        "path_escapes": 1,
        "duplicate_key": 1,
        "unknown_class": 1,
    }
    with pytest.raises(
        UsageError,
        match="no column 'path' for path; the columns are file, kind, part, patient; name it: dataset.columns.path=",
    ):
        build(*given)
    (tmp_path / "table.csv").write_text("\n".join(lines))
    grouped = build(
        *given,
        "dataset.columns={path:file,label:kind,group:patient}",
        "dataset.validation_fraction=0.5",
    )
    groups: dict[str, set[int]] = {}
    for split in grouped.splits:
        names = [example["image/filename"][0].decode() for example in examples(grouped, split)]
        groups[split] = {int(name.split(".")[0]) // 4 for name in names}
    assert (
        groups["train"] | groups["validation"] == {0, 1, 2}
        and not groups["train"] & groups["validation"]
    )


VOC_XML = """<annotation><filename>{name}.jpg</filename><size><width>32</width><height>24</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>16</ymax></bndbox></object>
<object><name>dog</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>32</xmax><ymax>24</ymax></bndbox></object>
<object><name>cow</name><bndbox><xmin>9</xmin><ymin>5</ymin><xmax>3</xmax><ymax>16</ymax></bndbox></object></annotation>"""


def voc(root: Path) -> Path:
    for number in range(6):
        picture(root / "JPEGImages" / f"{number}.jpg", colour=number)
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{number}.xml").write_text(VOC_XML.format(name=number))
        mask = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) % 3, (24, 1)), "P")
        mask.putpalette([value for index in range(256) for value in (index, 0, 255 - index)])
        (root / "SegmentationClass").mkdir(exist_ok=True)
        mask.save(root / "SegmentationClass" / f"{number}.png")
    for kind in ("Main", "Segmentation"):
        (root / "ImageSets" / kind).mkdir(parents=True)
        (root / "ImageSets" / kind / "train.txt").write_text("0\n1\n2\n3\n99\n")
        (root / "ImageSets" / kind / "val.txt").write_text("4 1\n5 -1\n")
    return root


def test_voc_boxes_count_pixels_from_one_and_difficult_ones_are_crowds(
    build: Build, tmp_path: Path
) -> None:
    built = build(
        "dataset=voc",
        f"dataset.root={voc(tmp_path / 'voc')}",
        "dataset.labels=[cat,dog]",
        "dataset.max_reject_fraction=1",
    )
    assert {name: split.examples for name, split in built.splits.items()} == {
        "train": 4,
        "validation": 2,
    }
    assert built.rejects == {"image_missing": 1, "unknown_category": 6}
    example = examples(built, "validation")[0]
    assert example["image/object/class/label"] == [1, 2] and example["image/object/is_crowd"] == [
        0,
        1,
    ]
    corners = [example[f"image/object/bbox/{side}"][0] for side in ("xmin", "ymin", "xmax", "ymax")]
    assert corners == pytest.approx([4 / 32, 4 / 24, 20 / 32, 16 / 24])
    assert (
        "unknown_category"
        not in build(
            "dataset=voc",
            f"dataset.root={tmp_path}/voc",
            "dataset.labels=null",
            "dataset.max_reject_fraction=1",
        ).rejects
    )


def test_voc_masks_take_the_palettes_indices(build: Build, tmp_path: Path) -> None:
    built = build(
        "dataset=voc_masks",
        f"dataset.root={voc(tmp_path / 'voc')}",
        "dataset.labels=[background,cat,dog]",
        "dataset.max_reject_fraction=1",
    )
    mask = np.asarray(
        Image.open(io.BytesIO(examples(built, "train")[0]["image/segmentation/class/encoded"][0]))
    )
    assert mask.tolist() == np.tile(np.arange(32) % 3, (24, 1)).tolist()
    assert built.classes["train"] == {
        "background": 4 * 24 * 11,
        "cat": 4 * 24 * 11,
        "dog": 4 * 24 * 10,
    }


def test_cityscapes_pairs_by_suffix_and_maps_its_label_ids(build: Build, tmp_path: Path) -> None:
    for split, city in (("train", "aachen"), ("val", "ulm")):
        for number in range(2):
            picture(
                tmp_path / "leftImg8bit" / split / city / f"{city}_{number}_leftImg8bit.png",
                colour=number,
            )
            picture(
                tmp_path / "gtFine" / split / city / f"{city}_{number}_gtFine_labelIds.png",
                mode="L",
                colour=7 if number else 3,
            )
            picture(tmp_path / "gtFine" / split / city / f"{city}_{number}_gtFine_color.png")
    built = build("dataset=cityscapes", f"dataset.root={tmp_path}")
    assert not built.rejects and len(built.labels) == 19
    found = sorted(
        Image.open(io.BytesIO(example["image/segmentation/class/encoded"][0])).getextrema()
        for example in examples(built, "train")
    )
    assert found == [(0, 0), (255, 255)]


def test_masks_that_do_not_fit_are_rejected(build: Build, tmp_path: Path) -> None:
    for number in range(8):
        picture(tmp_path / "images" / f"{number}.png", colour=number)
        picture(tmp_path / "masks" / f"{number}.png", mode="L", colour=1)
    picture(tmp_path / "masks" / "1.png", size=(5, 5), mode="L")
    picture(tmp_path / "masks" / "2.png", mode="L", colour=9)
    picture(tmp_path / "masks" / "3.png", mode="RGB")
    (tmp_path / "masks" / "4.png").write_bytes(b"nonsense")
    (tmp_path / "masks" / "5.png").unlink()
    picture(tmp_path / "masks" / "extra.png", mode="L")
    given = [
        "dataset=mask_folder",
        f"dataset.images={tmp_path}/images",
        f"dataset.masks={tmp_path}/masks",
        "dataset.max_reject_fraction=1",
        "dataset.validation_fraction=0",
    ]
    built = build(*given, "dataset.labels=[background,thing]")
    assert built.rejects == {
        "mask_size": 1,
        "unknown_class": 1,
        "mask_mode": 1,
        "mask_unreadable": 1,
        "no_mask": 1,
        "no_image": 1,
    }
    listed = (Path(built.directory) / "rejects.jsonl").read_text()
    assert "the bytes are no image" in listed and "object at 0x" not in listed
    with pytest.raises(UsageError, match="dataset.labels: masks carry no names"):
        build(*given)


def test_coco_keeps_category_ids_where_asked(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    built = build(
        *coco_at(file),
        "dataset.keep_category_ids=true",
    )
    assert len(built.labels) == 8 and built.labels[2] == "cat" and built.labels[7] == "dog"
    assert sorted(examples(built, "train")[0]["image/object/class/label"]) == [3, 3, 8]


def test_coco_without_masks_and_with_names_that_are_not_ascii(build: Build, tmp_path: Path) -> None:
    _, document = coco(tmp_path / "images")
    document["categories"][0]["name"] = "Kätzchen"
    (tmp_path / "images" / "001.jpg").rename(tmp_path / "images" / "größe.jpg")
    document["images"][0]["file_name"] = "größe.jpg"
    (tmp_path / "images.json").write_text(json.dumps(document, ensure_ascii=False))
    built = build(
        "dataset=coco",
        f"dataset.images={tmp_path}/images",
        f"dataset.annotations={tmp_path}/images.json",
        "dataset.include_masks=false",
    )
    assert built.labels[0] == "Kätzchen" and not built.has_masks and not built.rejects
    assert "image/object/mask" not in examples(built, "train")[0]


def test_coco_looks_for_images_in_several_folders(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images", 12)
    (tmp_path / "more").mkdir()
    for number in range(1, 5):
        (tmp_path / "images" / f"{number:03d}.jpg").rename(tmp_path / "more" / f"{number:03d}.jpg")
    (tmp_path / "more" / "005.jpg").write_bytes(
        (tmp_path / "images" / "005.jpg").read_bytes()
    )  # the same twice
    (tmp_path / "more" / "006.jpg").write_bytes(
        (tmp_path / "images" / "007.jpg").read_bytes()
    )  # another of the same name
    (tmp_path / "images" / "008.jpg").unlink()
    given = ["dataset=coco", f"dataset.annotations={file}", "dataset.max_reject_fraction=1"]
    built = build(*given, f"dataset.images=[{tmp_path}/images,{tmp_path}/more]")
    assert (
        built.rejects == {"image_ambiguous": 1, "image_missing": 1}
        and built.counts["examples_written"] == 10
    )
    reasons = {
        reject["code"]: reject["advice"]
        for reject in map(
            json.loads, (Path(built.directory) / "rejects.jsonl").read_text().splitlines()
        )
    }
    assert (
        f"{tmp_path}/images/006.jpg and {tmp_path}/more/006.jpg; rename or remove one"
        in reasons["image_ambiguous"]
    )
    assert "in none of the folders" in reasons["image_missing"]
    both = f"[{tmp_path}/images,{tmp_path}/more]"
    split = build(
        *given[:1],
        f"dataset.images={{train:{both},validation:{tmp_path}/more}}",
        f"dataset.annotations={{train:{file},validation:{file}}}",
        given[2],
    )
    assert {name: found.examples for name, found in split.splits.items()} == {
        "train": 10,
        "validation": 6,
    }


def test_several_folders_are_for_coco_alone(build: Build, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"dataset.images: \['a', 'b'\] is not a path; write dataset.images=<path>"
    ):
        build("dataset=image_folder", "dataset.images=[a,b]")
    with pytest.raises(UsageError, match=r"several as dataset.images=\[<path>,<path>\]"):
        build("dataset=coco", "dataset.images=[a,3]", "dataset.annotations=b")


def test_an_image_named_in_another_way_is_still_known_by_its_content(
    build: Build, tmp_path: Path
) -> None:
    _, document = coco(tmp_path / "images")
    document["images"][0]["file_name"] = "./001.jpg"
    file = save(tmp_path / "images", document)
    given = [
        *coco_at(file),
        "dataset.validation_fraction=0",
    ]
    before = build(*given)
    (tmp_path / "images" / "001.jpg").write_bytes((tmp_path / "images" / "002.jpg").read_bytes())
    assert not before.rejects and digests(build(*given)) != digests(before)


def panoptic(folder: Path, *more: str) -> list[str]:
    return [
        "dataset=coco_panoptic",
        f"dataset.images={folder}/images",
        f"dataset.masks={folder}/masks",
        f"dataset.annotations={folder}/panoptic.json",
        *more,
    ]


def test_panoptic_segments_become_a_class_for_each_pixel(build: Build, tmp_path: Path) -> None:
    coco_panoptic(tmp_path)
    built = build(*panoptic(tmp_path))
    assert built.labels == ("cat", "sky", "dog") and not built.rejects
    mask = np.asarray(
        Image.open(io.BytesIO(examples(built, "train")[0]["image/segmentation/class/encoded"][0]))
    )
    assert (mask[:10] == 1).all() and (mask[10:22] == 0).all() and (mask[22:] == 255).all()
    assert built.classes["train"] == {
        name: pixels * built.splits["train"].examples
        for name, pixels in (("cat", 12 * 32), ("sky", 10 * 32))
    }


def test_panoptic_things_become_boxes_and_masks(build: Build, tmp_path: Path) -> None:
    document = coco_panoptic(tmp_path)
    document["annotations"][0]["segments_info"][1]["category_id"] = 99
    document["annotations"][1]["segments_info"].append(
        {"id": 8, "category_id": 9, "bbox": [0, 0, 4, 4]}
    )
    document["annotations"][2]["segments_info"][1]["bbox"][0] = -3
    (tmp_path / "images" / "4.jpg").unlink()
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    built = build(
        *panoptic(
            tmp_path,
            "dataset.task=detection",
            "dataset.max_reject_fraction=1",
            "dataset.validation_fraction=0",
        )
    )
    assert built.labels == ("cat", "dog") and built.has_masks
    assert built.rejects == {"unknown_category": 1, "mask_empty": 1, "image_missing": 1}
    counts = built.counts
    assert (
        counts["objects_read"],
        counts["objects_written"],
        counts["objects_rejected"],
        counts["objects_of_rejected_examples"],
        counts["boxes_clipped"],
    ) == (21, 17, 2, 2, 1)
    example = next(
        example for example in examples(built, "train") if example["image/filename"] == [b"5.jpg"]
    )
    assert example["image/object/class/text"] == [b"cat", b"cat"] and example[
        "image/object/is_crowd"
    ] == [1, 0]
    assert [
        example[f"image/object/bbox/{side}"][1] for side in ("xmin", "ymin", "xmax", "ymax")
    ] == pytest.approx([0, 10 / 24, 8 / 32, 22 / 24])
    mask = np.asarray(Image.open(io.BytesIO(example["image/object/mask"][1])))
    assert mask.sum() == 12 * 8 and mask[10:22, :8].all()


def test_panoptic_annotations_that_do_not_fit_are_rejected(build: Build, tmp_path: Path) -> None:
    document = coco_panoptic(tmp_path, 16)
    annotations = document["annotations"]
    (tmp_path / "masks" / "1.png").unlink()
    picture(tmp_path / "masks" / "2.png", size=(5, 5))
    picture(tmp_path / "masks" / "3.png", mode="L")
    (tmp_path / "masks" / "4.png").write_bytes(b"nonsense")
    del annotations[4]["segments_info"][0]
    annotations[5]["segments_info"][0]["category_id"] = 99
    annotations[6]["segments_info"].append({"id": 8, "category_id": 9})
    annotations[7]["segments_info"].append(dict(annotations[7]["segments_info"][0]))
    del annotations[8]["segments_info"]
    annotations[9]["file_name"] = "../images/10.jpg"
    annotations[10]["image_id"] = 999
    annotations.append(dict(annotations[11]))
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    built = build(
        *panoptic(tmp_path, "dataset.max_reject_fraction=1", "dataset.validation_fraction=0")
    )
    of_masks = {
        "mask_missing": 1,
        "mask_size": 1,
        "mask_mode": 1,
        "mask_unreadable": 1,
        "mask_empty": 1,
        "path_escapes": 1,
    }
    of_entries = {
        "unknown_segment": 1,
        "unknown_category": 1,
        "duplicate_segment_id": 1,
        "annotation_malformed": 1,
        "unknown_image": 1,
        "no_annotation": 1,
        "duplicate_annotation": 1,
    }
    assert built.rejects == of_masks | of_entries
    assert built.counts["examples_written"] == 4 and built.counts["examples_read"] == 17


def test_panoptic_and_instances_are_told_apart(build: Build, tmp_path: Path) -> None:
    coco_panoptic(tmp_path)
    coco(tmp_path / "instances")
    with pytest.raises(
        UsageError,
        match="panoptic.json: COCO panoptic; it needs dataset=coco_panoptic dataset.masks=<folder of its PNGs>",
    ):
        build(
            "dataset=coco",
            f"dataset.images={tmp_path}/images",
            f"dataset.annotations={tmp_path}/panoptic.json",
        )
    with pytest.raises(
        UsageError,
        match=r"category 'cat' has no isthing of 0 or 1; expected COCO panoptic \(instances: dataset=coco\)",
    ):
        build(*panoptic(tmp_path)[:-1], f"dataset.annotations={tmp_path}/instances.json")


def test_a_changed_panoptic_png_is_other_data(build: Build, tmp_path: Path) -> None:
    coco_panoptic(tmp_path)
    before = build(*panoptic(tmp_path))
    pixels = np.asarray(Image.open(tmp_path / "masks" / "1.png")).copy()
    pixels[0, 0] = 0
    Image.fromarray(pixels).save(tmp_path / "masks" / "1.png")
    after = build(*panoptic(tmp_path))
    assert digests(after) != digests(before) and after.classes != before.classes


def test_existing_records_are_adopted_as_they_are(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    made = build(*coco_at(file))
    patterns = f"dataset.images={{train:'{made.directory}/train-*',validation:'{made.directory}/validation-*'}}"
    adopted = build("dataset=tfrecord", patterns)
    assert adopted.labels == made.labels and adopted.has_masks and adopted.classes == made.classes
    assert digests(adopted) == digests(made)
    assert all(
        (Path(adopted.directory) / shard.file).is_symlink()
        for split in adopted.splits.values()
        for shard in split.shards
    )
    assert build("dataset=tfrecord", patterns) == adopted
    assert all(lengths(adopted, split) == lengths(made, split) != [] for split in adopted.splits)


def test_records_that_do_not_fit_are_not_adopted(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images")
    made = build(*coco_at(file))
    folder = tmp_path / "records"
    folder.mkdir()
    content = next(Path(made.directory).glob("train-*.tfrecord")).read_bytes()
    (folder / "a.tfrecord").write_bytes(content[:-3])
    with pytest.raises(
        UsageError, match="1 records do not fit.*\n.*record file: file_corrupt: record at byte"
    ):
        build("dataset=tfrecord", f"dataset.images={{train:'{folder}'}}")
    (folder / "a.tfrecord").write_bytes(content)
    with pytest.raises(UsageError, match="record_malformed: no feature image/class/label"):
        build(
            "dataset=tfrecord",
            "dataset.task=classification",
            f"dataset.images={{train:'{folder}'}}",
        )
    with pytest.raises(UsageError, match="label 2 is not one of dataset.labels"):
        build("dataset=tfrecord", "dataset.labels=[cat]", f"dataset.images={{train:'{folder}'}}")


BUILDER = """
import sys, numpy as np, tensorflow_datasets as tfds
class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")
    def _info(self):
        box = {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=["cat", "dog"])}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
            "image": tfds.features.Image(), "image/id": np.int64, "label": tfds.features.ClassLabel(names=["yes", "no"]), "objects": tfds.features.Sequence(box)}))
    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(8), "test": self._generate_examples(3)}
    def _generate_examples(self, count):
        for number in range(count):
            box = {"bbox": tfds.features.BBox(0.25, 0.5, 0.75, 1.0), "label": number % 2}
            yield number, {"image": np.full((24, 32, 3), number, np.uint8), "image/id": 100 + number, "label": number % 2, "objects": [box] * (number % 3)}
Tiny(data_dir=sys.argv[1], file_format="tfrecord").download_and_prepare()
"""


@pytest.mark.slow
def test_a_builder_of_ones_own_passes_its_images_through(
    build: Build, tmp_path: Path, cloud: bucket.Bucket
) -> None:
    subprocess.run(
        [sys.executable, "-c", BUILDER, str(tmp_path / "tfds")], check=True, capture_output=True
    )
    given = ["dataset=tfds", f"dataset.root={tmp_path}/tfds", "dataset.builder=tiny:1.2.0"]
    built = build(*given)
    assert built.labels == ("yes", "no") and built.formats == ("png",)
    assert {name: split.examples for name, split in built.splits.items()} == {
        "train": 8,
        "validation": 3,
    }
    detection = build(*given, "dataset.task=detection")
    assert detection.labels == ("cat", "dog") and detection.counts["objects_written"] == 7 + 3
    example = next(
        example
        for example in examples(detection, "train")
        if example["image/source_id"] == [b"102"]
    )
    assert [example[f"image/object/bbox/{side}"] for side in ("ymin", "xmin", "ymax", "xmax")] == [
        [0.25] * 2,
        [0.5] * 2,
        [0.75] * 2,
        [1.0] * 2,
    ]
    assert example["image/object/class/label"] == [1, 1]
    with pytest.raises(UsageError, match="dataset.lists: tiny:1.2.0 has no split dev; there are: "):
        build(*given, "dataset.lists={train:dev}")
    address = bucket.upload(tmp_path / "tfds", "gs://bucket/tfds")
    remote = build(
        "dataset=tfds",
        f"dataset.root={address}",
        "dataset.builder=tiny:1.2.0",
        data_dir=tmp_path / "remote",
    )
    assert remote == built and digests(remote) == digests(built)
    with pytest.raises(
        UsageError, match=r"gs://bucket/tfds/tiny/9.9.9: there is no such file or folder"
    ):
        build("dataset=tfds", f"dataset.root={address}", "dataset.builder=tiny:9.9.9")


def test_a_builder_needs_its_version(build: Build) -> None:
    with pytest.raises(
        UsageError, match=r"'coco/2017' has no version; write dataset.builder=coco/2017:<version>"
    ):
        build("dataset=tfds", "dataset.builder=coco/2017")
