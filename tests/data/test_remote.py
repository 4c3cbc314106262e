"""Addresses such as gs://: what works through the filesystem layer, and what is refused by name."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import UsageError
from pipelines.data.manifest import Manifest
from tests.data.conftest import coco

Build = Callable[..., Manifest]

# An object store in memory takes the place of the network behind gs://.
BUCKET = """
import json, sys
import fsspec
from fsspec.implementations.memory import MemoryFileSystem

class Bucket(MemoryFileSystem):
    protocol = ("gs", "gcs")
    @classmethod
    def _strip_protocol(cls, path):
        return "/" + str(path).removeprefix("gs://").strip("/")

for name in Bucket.protocol:
    fsspec.register_implementation(name, Bucket, clobber=True)

import tasks
from pipelines import config
from pipelines.data import manifest, store

def built(*more):
    cfg = config.compose([*sys.argv[1:], "data_dir=gs://bucket/data", "runner=direct", "dataset.validate=none", *more])
    return store.obtain(cfg, tasks.load(cfg.dataset.task))

one = built()
found = manifest.find("gs://bucket/data", config.compose(sys.argv[1:]).dataset, one.version)
assert found == one and found.directory == one.directory, found
bucket = Bucket()
def stored():
    return {name for name in bucket.find("/bucket/data") if "/coco-" in name}
before = stored()
lost = one.splits["train"].shards[0].file
bucket.rm(f"{one.directory}/{lost}".removeprefix("gs:/"))
assert built() == one and stored() == before
other = built("dataset.keep_category_ids=true")
assert other.directory != one.directory
print(json.dumps([one.to_json(), one.directory, sorted(name.rsplit("/", 1)[1] for name in before)]))
"""


def test_records_and_manifest_in_a_bucket_are_those_of_the_disk(build: Build, tmp_path: Path) -> None:
    file, _ = coco(tmp_path / "images", 20)
    overrides = ["dataset=coco", f"dataset.images={tmp_path}/images", f"dataset.annotations={file}", "dataset.shards={train:3}"]
    here = build(*overrides)
    environment = {**os.environ, "EPATH_USE_TF": "false"}
    done = subprocess.run([sys.executable, "-c", BUCKET, *overrides], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    text, directory, names = json.loads(done.stdout.splitlines()[-1])
    assert text == here.to_json() and directory.startswith("gs://bucket/data/coco-")
    assert names == sorted(path.name for path in Path(here.directory).iterdir())
    assert not Path("gs:").exists()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["dataset=coco", "dataset.images=gs://b/photos", "dataset.annotations=a.json"], "dataset.images: gs://b/photos is remote, and sources are read from local disk; copy it or mount it"),
        (["dataset=coco", "dataset.images={train:[a,s3://b/photos]}", "dataset.annotations=a.json"], "dataset.images: s3://b/photos is remote"),
        (["dataset=voc", "dataset.root=gs://b/VOC2012"], "dataset.root: gs://b/VOC2012 is remote"),
        (["dataset=coco", "dataset.images=a", "dataset.annotations=a.json", "data_dir=s3://b/data"], "data_dir: s3://b/data: TensorFlow as installed reads local paths and gs://, not s3://"),
        (["dataset=digits", "data_dir=gs://b/data"], "data_dir: gs://b/data: the source of an embedded data set must lie on local disk"),
        (["dataset=tfrecord", "dataset.images={train:a}", "data_dir=gs://b/data"], "data_dir: gs://b/data: links to adopted records must lie on local disk"),
    ],
)
def test_a_remote_place_that_cannot_be_used_is_refused_by_name(build: Build, tmp_path: Path, overrides: list[str], says: str) -> None:
    place = next((item.removeprefix("data_dir=") for item in overrides if item.startswith("data_dir=")), str(tmp_path))
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        build(*(item for item in overrides if not item.startswith("data_dir=")), data_dir=place)
