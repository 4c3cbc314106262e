"""Over generated annotation files: no crash, and the counts always add up."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath
from PIL import Image

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tasks
from pipelines.config import Dataset, UsageError
from pipelines.data import build, content, index, sources, stream
from pipelines.data.records import Job, positions, write_shard
from pipelines.data.sources import coco
from pipelines.data.summary import read

numbers = st.one_of(st.integers(-5, 60), st.floats(-50, 100), st.sampled_from([float("nan"), float("inf"), None, "7", True]))
boxes = st.one_of(st.lists(numbers, max_size=5), st.none(), st.text(max_size=3), st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 8), st.integers(1, 8)).map(list))
polygons = st.lists(st.lists(numbers, max_size=10), max_size=3)
runs = st.fixed_dictionaries({"size": st.sampled_from([[24, 32], [1, 1], [], None]), "counts": st.one_of(st.lists(st.integers(-1, 800), max_size=5), st.text(max_size=8))})
identities = st.one_of(st.integers(0, 12), st.sampled_from(["1", "a", None, [1], 1.5, -1, 2**70]))
annotation = st.fixed_dictionaries(
    {"id": identities, "image_id": identities, "category_id": identities, "bbox": boxes},
    optional={"segmentation": st.one_of(polygons, runs, st.none(), st.just([[2, 2, 20, 2, 20, 20]])), "iscrowd": st.sampled_from([0, 1, None, "x"]), "area": numbers},
)
image = st.fixed_dictionaries(
    {"id": identities, "file_name": st.sampled_from([f"{number}.jpg" for number in range(8)] + ["../x.jpg", "/etc/passwd", "", "ü.jpg", "\ud800", "a\0b", 7])},
    optional={"height": st.sampled_from([24, 32, None, "24"]), "width": st.sampled_from([32, 24, None, -1])},
)
anything = st.sampled_from([None, 3, "x", [], {}])
documents = st.fixed_dictionaries(
    {
        "images": st.lists(st.one_of(image, image, anything), max_size=10),
        "annotations": st.lists(st.one_of(annotation, annotation, annotation, anything), max_size=20),
        "categories": st.lists(st.integers(0, 12).map(lambda number: {"id": number, "name": f"c{number}"}), min_size=1, max_size=5),
    },
    optional={"info": anything, "licenses": st.lists(anything, max_size=2)},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("properties")
    (root / "images").mkdir()
    for number in range(6):
        Image.fromarray(np.full((24, 32, 3), 40 * number, np.uint8)).save(root / "images" / f"{number}.jpg")
    (root / "images" / "6.jpg").write_bytes(b"\xff\xd8broken")
    return root


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(document=documents)
def test_every_image_and_every_object_ends_in_a_shard_or_among_the_rejects(folder: Path, document: dict[str, Any]) -> None:
    file = folder / "annotations.json"
    file.write_text(json.dumps(document))
    dataset = Dataset(name="coco", task="detection", source="coco", images=str(folder / "images"), annotations=str(file), validation_fraction=0.0)
    places = {"images": {"": str(folder / "images")}, "annotations": {"": str(file)}}
    digests = {"images": {"": content.Digests(str(folder / "data")).of(str(folder / "images"))}, "annotations": {"": {"": "x"}}}
    target = epath.Path(folder / "built")
    try:
        listing = coco.listing(sources.Request(dataset, places, digests))
        listed = index.write(str(target / "index"), listing.items, {"train": 2}, "recipe")
    except UsageError as error:
        assert "no example to train on" in str(error) or "expected COCO" in str(error) or "no images" in str(error)
        return
    job = Job(str(target), listed, "coco", sources.Request(dataset, places, {}, listing.shared), tasks.load("detection").encode, tuple(listed.shards))
    located: dict[str, list] = {}
    for part in range(3):
        for shard, position in positions(("train", part, 3), job):
            located.setdefault(shard, []).append(position)
    for grouped in located.items():
        write_shard(grouped, job)
    summaries = [read(target, shard) for shard in listed.shards]
    rejects = build.rejects_of(listed, [one for one in summaries if one])
    written = sum(one.examples for one in summaries if one), sum(one.objects for one in summaries if one)
    assert written[0] + sum(reject.whole for reject in rejects) == len(document["images"])
    assert written[1] + sum(not reject.whole for reject in rejects) + sum(reject.objects for reject in rejects) == len(document["annotations"])
    assert all(reject.code and reject.advice for reject in rejects)


values = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()), lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)), max_leaves=12)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(values, max_size=12), rest=st.dictionaries(st.text(max_size=6), values, max_size=3), chunk=st.integers(1, 64), ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_the_stream_finds_every_element_whatever_the_chunk(
    tmp_path_factory: pytest.TempPathFactory, items: list[Any], rest: dict[str, Any], chunk: int, ascii_only: bool, indent: int | None
) -> None:
    document = {**rest, "images": items}
    raw = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    path = tmp_path_factory.getbasetemp() / "stream.json"
    path.write_bytes(raw)
    before, stream.CHUNK = stream.CHUNK, chunk
    try:
        with path.open("rb") as file:
            found = list(stream.elements(file, "stream.json", ["images"]))
    finally:
        stream.CHUNK = before
    assert [json.loads(raw[start : start + len(text)].decode("utf-8", "surrogatepass")) for _, start, text, _ in found] == items
