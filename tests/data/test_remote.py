"""Addresses such as gs://: what works through the filesystem layer, and what is refused by name."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data import files
from pipelines.data.manifest import Manifest
from pipelines.usage import UsageError
from tests.data import bucket
from tests.data.bucket import Bucket
from tests.data.conftest import coco, coco_panoptic, save
from tests.data.test_sources import picture, voc

Build = Callable[..., Manifest]
SCHEMES = pytest.mark.parametrize("scheme", ["gs", "s3"])


def classes(root: Path) -> list[str]:
    for number in range(20):
        picture(
            root / "images" / ("cat" if number % 2 else "dog") / f"{number:02d}.jpg", colour=number
        )
    (root / "images" / "cat" / "half.jpg").write_bytes(
        (root / "images" / "cat" / "01.jpg").read_bytes()[:300]
    )
    (root / "images" / "cat" / "notes.txt").write_text("no image")
    (root / "images" / "cat" / ".hidden.jpg").write_text("no image either")
    picture(root / "images" / "alone.jpg")
    return ["dataset=image_folder", "dataset.images={}/images"]


def table(root: Path) -> list[str]:
    classes(root)
    rows = [
        "cat/01.jpg,cat",
        "./cat/03.jpg,cat",
        "dog/../cat/05.jpg,cat",
        "dog/00.jpg,dog",
        "dog/02.jpg,dog",
        "../images.csv,dog",
        "/etc/hosts,cat",
        "cat/99.jpg,cat",
    ]
    (root / "table.csv").write_text("\n".join(["path,label", *rows]))
    return ["dataset=csv", "dataset.images={}/images", "dataset.annotations={}/table.csv"]


def instances(root: Path) -> list[str]:
    _, document = coco(root / "images", 20)
    (root / "more").mkdir()
    for number in (3, 4, 5):
        (root / "images" / f"{number:03d}.jpg").rename(root / "more" / f"{number:03d}.jpg")
    (root / "images" / "007.jpg").unlink()
    (root / "images" / "008.jpg").write_bytes((root / "images" / "008.jpg").read_bytes()[:200])
    document["images"][0]["file_name"] = "./001.jpg"
    document["images"][1]["file_name"] = "../images.json"
    document["annotations"][40]["bbox"] = [0, 0, 0, 4]
    save(root / "images", document)
    return [
        "dataset=coco",
        "dataset.images=[{}/images,{}/more]",
        "dataset.annotations={}/images.json",
    ]


def panoptic(root: Path) -> list[str]:
    coco_panoptic(root)
    (root / "masks" / "3.png").unlink()
    return [
        "dataset=coco_panoptic",
        "dataset.images={}/images",
        "dataset.masks={}/masks",
        "dataset.annotations={}/panoptic.json",
    ]


def painted(root: Path) -> list[str]:
    for number in range(12):
        picture(root / "images" / f"{number}.png", colour=number)
        picture(root / "masks" / f"{number}.png", mode="L", colour=number % 3)
    (root / "masks" / "5.png").unlink()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "masks" / "6.png")
    return [
        "dataset=mask_folder",
        "dataset.images={}/images",
        "dataset.masks={}/masks",
        "dataset.labels=[a,b]",
    ]


def pascal(root: Path) -> list[str]:
    voc(root)
    (root / "Annotations" / "3.xml").write_text("<annotation>")
    return ["dataset=voc", "dataset.root={}", "dataset.labels=null"]


def pascal_named(root: Path) -> list[str]:
    return [*pascal(root)[:-1], "dataset.labels=[cat,dog]"]


def pascal_masks(root: Path) -> list[str]:
    voc(root)
    return ["dataset=voc_masks", "dataset.root={}", "dataset.labels=[background,cat,dog]"]


SOURCES = [classes, table, instances, panoptic, painted, pascal, pascal_masks]


def at(place: str | Path, overrides: list[str]) -> list[str]:
    return [
        *(text.replace("{}", str(place)) for text in overrides),
        "dataset.max_reject_fraction=1",
        "runner=direct",
    ]


def written(built: Manifest) -> tuple[str, str, list[str]]:
    """All that a build leaves: manifest (with the shards' SHA-256), fingerprint, rejects."""
    return (
        built.to_json(),
        built.fingerprint,
        (Path(built.directory) / "rejects.jsonl").read_text().splitlines(),
    )


@SCHEMES
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
def test_a_remote_source_gives_the_bytes_and_the_rejects_of_a_local_one(
    build: Build, tmp_path: Path, cloud: Bucket, source: Callable[[Path], list[str]], scheme: str
) -> None:
    (tmp_path / "source").mkdir()
    overrides = source(tmp_path / "source")
    here = build(*at(tmp_path / "source", overrides), data_dir=tmp_path / "here")
    address = bucket.upload(tmp_path / "source", f"{scheme}://bucket/source")
    there = build(*at(address, overrides), data_dir=tmp_path / "there")
    assert written(there) == written(here) and here.rejects
    assert not Path(f"{scheme}:").exists()


def test_unchanged_objects_are_known_by_their_tags_and_not_fetched_again(
    build: Build, tmp_path: Path, cloud: Bucket
) -> None:
    given = classes(tmp_path / "source")
    address = bucket.upload(tmp_path / "source", "gs://bucket/a")
    overrides = at(address, [f"{text}/" if "images" in text else text for text in given])
    one = build(*overrides)
    cloud.fetched.clear()
    assert build(*overrides) == one and not cloud.fetched
    changed = bytearray(cloud.cat_file(f"{address}/images/cat/01.jpg"))
    changed[-20] ^= 1
    cloud.pipe_file(f"{address}/images/cat/01.jpg", bytes(changed))
    cloud.fetched.clear()
    other = build(*overrides)
    assert other.fingerprint != one.fingerprint
    assert cloud.fetched.count("01.jpg") == 2  # once for its digest, once for its record
    Bucket.tags = False
    cloud.fetched.clear()
    assert (
        build(*overrides) == other
        and len(cloud.fetched) == len(list((tmp_path / "source").rglob("*.*"))) - 1
    )


def test_an_annotation_file_that_changed_is_read_anew_in_the_same_process(
    build: Build, tmp_path: Path, cloud: Bucket
) -> None:
    overrides = instances(tmp_path)
    address = bucket.upload(tmp_path, "s3://bucket/source")
    one = build(*at(address, overrides))
    document = json.loads(cloud.cat_file(f"{address}/images.json"))
    document["annotations"].reverse()  # other positions
    document["annotations"][5]["bbox"] = [1, 1, 9, 9]
    cloud.pipe_file(f"{address}/images.json", json.dumps(document).encode())
    (tmp_path / "images.json").write_text(json.dumps(document))
    other = build(*at(address, overrides))
    assert other.fingerprint != one.fingerprint
    assert written(other) == written(build(*at(tmp_path, overrides), data_dir=tmp_path / "here"))


@pytest.mark.parametrize(
    ("source", "lost"),
    [(classes, "03.jpg"), (instances, "images.json"), (painted, "4.png"), (pascal_named, "2.xml")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_store_out_of_reach_stops_the_build_and_rejects_nothing(
    build: Build, tmp_path: Path, cloud: Bucket, source: Callable[[Path], list[str]], lost: str
) -> None:
    (tmp_path / "source").mkdir()
    overrides = source(tmp_path / "source")
    here = build(*at(tmp_path / "source", overrides), data_dir=tmp_path / "here")
    given = at(bucket.upload(tmp_path / "source", "gs://bucket/a"), overrides)
    # Known by their tags from another data set, so that the first to fetch it is a worker, or the scan.
    there = build(*given, "dataset.validation_fraction=0.5")
    assert there.fingerprint != here.fingerprint
    files.kept.cache_clear()
    cloud.out_of_reach.add(lost)
    with pytest.raises(
        UsageError, match=rf"gs://bucket/a/\S*{lost}: cannot be fetched: TimeoutError"
    ):
        build(*given)
    cloud.out_of_reach.clear()
    assert written(build(*given)) == written(here)


# A source and its records in a store, in a process that has read nothing with TensorFlow.
BOTH_REMOTE = """
import json, sys
from pathlib import Path
from tests.data import bucket
store = bucket.install()
bucket.upload(Path(sys.argv[1]), "gs://bucket/source")

import tasks
from pipelines import config
from pipelines.data import manifest, store as records

def built(*more):
    cfg = config.compose([*sys.argv[2:], "data_dir=gs://bucket/data", "dataset.validate=none", *more])
    return records.obtain(cfg, tasks.load(cfg.dataset.task))

one = built()
found = manifest.find("gs://bucket/data", config.compose(sys.argv[2:]).dataset, one.version)
assert found == one and found.directory == one.directory, found
def stored():
    return {name for name in store.find("/bucket/data") if "/coco-" in name}
before = stored()
lost = one.splits["train"].shards[0].file
store.rm(f"{one.directory}/{lost}".removeprefix("gs:/"))
assert built() == one and stored() == before
other = built("dataset.keep_category_ids=true")
assert other.directory != one.directory
assert "tensorflow" not in sys.modules
print(json.dumps([one.to_json(), one.directory, sorted(name.rsplit("/", 1)[1] for name in before)]))
"""


def test_source_records_and_manifest_in_a_bucket_are_those_of_the_disk(
    build: Build, tmp_path: Path
) -> None:
    overrides = [*instances(tmp_path / "source"), "dataset.shards={train:3}"]
    here = build(*at(tmp_path / "source", overrides))
    environment = {**os.environ, "EPATH_USE_TF": "false"}
    command = [
        sys.executable,
        "-c",
        BOTH_REMOTE,
        str(tmp_path / "source"),
        *at("gs://bucket/source", overrides),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    text, directory, names = json.loads(done.stdout.splitlines()[-1])
    assert text == here.to_json() and directory.startswith("gs://bucket/data/coco-")
    assert names == sorted(path.name for path in Path(here.directory).rglob("*") if path.is_file())
    assert not Path("gs:").exists()


EMBEDDED_REMOTE = """
import sys
from tests.data import bucket
cloud = bucket.install()

import tasks
from pipelines import config
from pipelines.data import locations, manifest, store

def built(place):
    cfg = config.compose(["dataset=digits", f"data_dir={place}", "dataset.validate=none", "runner=direct"])
    assert manifest.find(place, cfg.dataset, tasks.load("classification").VERSION) is None
    return store.obtain(cfg, tasks.load("classification"))

here = built(sys.argv[1])
folder = locations.embedded_folder("gs://bucket/data", config.compose(["dataset=digits"]).dataset)
cloud.pipe_file(f"{folder}/train/0/0000.jpg", b"from an upload that was killed")
there = built("gs://bucket/data")
assert there.to_json() == here.to_json() and there.directory.startswith("gs://"), there.directory
cloud.fetched.clear()
assert manifest.find("gs://bucket/data", config.compose(["dataset=digits"]).dataset, there.version) == there
assert not any(name.endswith(".jpg") for name in cloud.fetched), cloud.fetched
assert "tensorflow" not in sys.modules
"""


def test_embedded_data_in_a_bucket_are_those_of_the_disk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED_REMOTE, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "EPATH_USE_TF": "false"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["dataset=coco", "dataset.images=hdfs://b/photos", "dataset.annotations=a.json"],
            "dataset.images: hdfs://b/photos: hdfs:// cannot be read; give a local path, gs://… or s3://…",
        ),
        (
            ["dataset=coco", "dataset.images=gs://b/photos", "dataset.annotations=a.json"],
            "dataset.images: gs://b/photos: gs:// is read with gcsfs, which is not installed; install it: .venv/bin/uv pip install gcsfs",
        ),
        (
            [
                "dataset=coco",
                "dataset.images={train:[a,s3://b/photos]}",
                "dataset.annotations=a.json",
            ],
            "dataset.images: s3://b/photos: s3:// is read with s3fs, which is not installed",
        ),
        (
            ["dataset=voc", "dataset.root=s3://b/VOC2012"],
            "dataset.root: s3://b/VOC2012: s3:// is read with s3fs",
        ),
        (
            [
                "dataset=coco",
                "dataset.images=a",
                "dataset.annotations=a.json",
                "data_dir=gs://b/data",
            ],
            "data_dir: gs://b/data: gs:// is read with gcsfs",
        ),
        (
            [
                "dataset=coco",
                "dataset.images=a",
                "dataset.annotations=a.json",
                "data_dir=s3://b/data",
            ],
            "data_dir: s3://b/data: TensorFlow as installed reads local paths and gs://, not s3://",
        ),
        (
            ["dataset=tfrecord", "dataset.images={train:a}", "data_dir=gs://b/data"],
            "data_dir: gs://b/data: links to adopted records must lie on local disk",
        ),
        (
            ["dataset=tfrecord", "dataset.images={train:'gs://b/r-*'}"],
            "dataset.images: gs://b/r-*: adopted records are linked, not rewritten, and must lie on local disk",
        ),
    ],
)
def test_a_remote_place_that_cannot_be_used_is_refused_by_name(
    build: Build, tmp_path: Path, overrides: list[str], says: str
) -> None:
    place = next(
        (item.removeprefix("data_dir=") for item in overrides if item.startswith("data_dir=")),
        str(tmp_path),
    )
    with pytest.raises(UsageError) as refused:
        build(*(item for item in overrides if not item.startswith("data_dir=")), data_dir=place)
    assert says in str(refused.value)


def test_an_empty_place_in_a_store_is_named(build: Build, cloud: Bucket) -> None:
    with pytest.raises(UsageError, match=r"gs://bucket/nothing: there is no such file or folder"):
        build("dataset=image_folder", "dataset.images=gs://bucket/nothing")
