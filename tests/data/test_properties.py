"""Over generated annotation files: no crash, and the counts always add up."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tasks
from pipelines.config import Dataset
from pipelines.data import checks, content, description, encoders, index, json_elements, sources
from pipelines.data.example import Reject
from pipelines.data.listing import Request
from pipelines.data.shards import Job, positions, write
from pipelines.data.summary import Summary, read
from pipelines.usage import UsageError
from tests.fuzzing import examples

numbers = st.one_of(
    st.integers(-5, 60),
    st.floats(-50, 100),
    st.sampled_from([float("nan"), float("inf"), None, "7", True]),
)
boxes = st.one_of(
    st.lists(numbers, max_size=5),
    st.none(),
    st.text(max_size=3),
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 8), st.integers(1, 8)).map(
        list
    ),
)
polygons = st.lists(st.lists(numbers, max_size=10), max_size=3)
runs = st.fixed_dictionaries(
    {
        "size": st.sampled_from([[24, 32], [1, 1], [], None]),
        "counts": st.one_of(st.lists(st.integers(-1, 800), max_size=5), st.text(max_size=8)),
    }
)
identities = st.one_of(st.integers(0, 12), st.sampled_from(["1", "a", None, [1], 1.5, -1, 2**70]))
annotation = st.fixed_dictionaries(
    {"id": identities, "image_id": identities, "category_id": identities, "bbox": boxes},
    optional={
        "segmentation": st.one_of(polygons, runs, st.none(), st.just([[2, 2, 20, 2, 20, 20]])),
        "iscrowd": st.sampled_from([0, 1, None, "x"]),
        "area": numbers,
    },
)
image = st.fixed_dictionaries(
    {
        "id": identities,
        "file_name": st.sampled_from(
            [f"{number}.jpg" for number in range(8)]
            + ["../x.jpg", "/etc/passwd", "", "ü.jpg", "\ud800", "a\0b", 7]
        ),
    },
    optional={
        "height": st.sampled_from([24, 32, None, "24"]),
        "width": st.sampled_from([32, 24, None, -1]),
    },
)
anything = st.sampled_from([None, 3, "x", [], {}])
documents = st.fixed_dictionaries(
    {
        "images": st.lists(st.one_of(image, image, anything), max_size=10),
        "annotations": st.lists(
            st.one_of(annotation, annotation, annotation, anything), max_size=20
        ),
        "categories": st.lists(
            st.integers(0, 12).map(lambda number: {"id": number, "name": f"c{number}"}),
            min_size=1,
            max_size=5,
        ),
    },
    optional={"info": anything, "licenses": st.lists(anything, max_size=2)},
)


PAINTED = [
    (300, 5),
    (5, 70000),
    (0, 5),
    (0, 0),
]  # segments of the upper and the lower half of each panoptic PNG


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("properties")
    (root / "images").mkdir()
    for number in range(6):
        Image.fromarray(np.full((24, 32, 3), 40 * number, np.uint8)).save(
            root / "images" / f"{number}.jpg"
        )
    (root / "images" / "6.jpg").write_bytes(b"\xff\xd8broken")
    (root / "masks").mkdir()
    for number, (first, second) in enumerate(PAINTED):
        segments = np.full((24, 32), first, np.uint32)
        segments[12:] = second
        Image.fromarray(
            np.stack([segments & 255, segments >> 8 & 255, segments >> 16], axis=-1).astype(
                np.uint8
            )
        ).save(root / "masks" / f"{number}.png")
    return root


def outcome(
    folder: Path, document: dict[str, Any], source: str, task: str
) -> tuple[list[Summary], list[Reject]] | None:
    """What a build without Beam writes and rejects; None where it says that there is nothing to train on."""
    file = folder / "annotations.json"
    file.write_text(json.dumps(document))
    dataset = Dataset(name=source, task=task, source=source, validation_fraction=0.0)
    places = {
        "images": {"": str(folder / "images")},
        "masks": {"": str(folder / "masks")},
        "annotations": {"": str(file)},
    }
    digests = {
        field: {"": content.Digests(str(folder / "data")).of(places[field][""])[0]}
        for field in places
    }
    target = epath.Path(folder / "built")
    checks.place(target, "").mkdir(parents=True, exist_ok=True)
    try:
        listing = sources.load(source).listing(Request(dataset, places, digests))
        counted = partial(
            sources.objects_of,
            sources.load(source),
            request=Request(dataset, places, {}, listing.shared),
        )
        listed = index.write(str(target / "index"), listing.items, {"train": 2}, "recipe", counted)
    except UsageError as error:
        assert any(
            reason in str(error)
            for reason in (
                "no example to train on",
                "expected COCO",
                "no images",
                "no category has isthing 1",
                "two categories have the id",
            )
        )
        return None
    job = Job(
        str(target),
        listed,
        source,
        Request(dataset, places, {}, listing.shared),
        tasks.load(task).encode,
        encoders.used(dataset),
        tuple(listed.shards),
    )
    located: dict[str, list] = {}
    for part in range(3):
        for shard, position in positions(("train", part, 3), job):
            located.setdefault(shard, []).append(position)
    for grouped in located.items():
        write(grouped, job)
    summaries = [one for shard in listed.shards if (one := read(target, shard))]
    description.require_all(source, listing, listed, summaries)
    rejects = description.rejects_of(listed, summaries)
    assert all(reject.code and reject.advice for reject in rejects)
    return summaries, rejects


@examples(150)
@given(document=documents)
def test_every_image_and_every_object_ends_in_a_shard_or_among_the_rejects(
    folder: Path, document: dict[str, Any]
) -> None:
    found = outcome(folder, document, "coco", "detection")
    if found:
        summaries, rejects = found
        assert sum(one.examples for one in summaries) + sum(
            reject.whole for reject in rejects
        ) == len(document["images"])
        objects = sum(not reject.whole for reject in rejects) + sum(
            reject.objects for reject in rejects
        )
        assert sum(one.objects for one in summaries) + objects == len(document["annotations"])


segment = st.fixed_dictionaries(
    {
        "id": st.sampled_from([300, 5, 5, 70000, 0, None, -1, 2**70]),
        "category_id": identities,
        "bbox": boxes,
    },
    optional={"iscrowd": st.sampled_from([0, 1, None])},
)
png = st.sampled_from([f"{number}.png" for number in range(5)] + ["../x.png", "", "a\0b", 7, None])
panoptic_annotation = st.fixed_dictionaries(
    {
        "image_id": identities,
        "file_name": png,
        "segments_info": st.one_of(
            st.lists(segment, max_size=4), st.lists(anything, max_size=2), anything
        ),
    },
    optional={"id": identities},
)
fitting_image = st.integers(0, 5).map(
    lambda number: {"id": number, "file_name": f"{number}.jpg", "height": 24, "width": 32}
)
fitting_annotation = st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 3), boxes).map(
    lambda made: {
        "image_id": made[0],
        "file_name": f"{made[1]}.png",
        "segments_info": [
            {"id": number, "category_id": made[2], "bbox": made[3]}
            for number in PAINTED[made[1]]
            if number
        ],
    }
)
category = st.tuples(st.integers(0, 12), st.integers(0, 1)).map(
    lambda made: {"id": made[0], "name": f"c{made[0]}", "isthing": made[1]}
)
panoptic_documents = st.fixed_dictionaries(
    {
        "images": st.one_of(
            st.lists(st.one_of(fitting_image, image, anything), max_size=10),
            st.lists(fitting_image, min_size=1, max_size=6),
        ),
        "annotations": st.one_of(
            st.lists(st.one_of(fitting_annotation, panoptic_annotation, anything), max_size=12),
            st.lists(fitting_annotation, min_size=1, max_size=8),
        ),
        "categories": st.lists(category, min_size=1, max_size=8),
    }
)


@examples(100)
@given(document=panoptic_documents, task=st.sampled_from(["segmentation", "detection"]))
def test_every_panoptic_image_and_every_stray_annotation_is_accounted_for(
    folder: Path, document: dict[str, Any], task: str
) -> None:
    found = outcome(folder, document, "coco_panoptic", task)
    if found:
        summaries, rejects = found
        stray = [
            reject
            for reject in rejects
            if reject.code in ("unknown_image", "duplicate_annotation_id")
            or reject.record.startswith("annotations at byte")
        ]
        assert sum(one.examples for one in summaries) + sum(
            reject.whole for reject in rejects
        ) - len(stray) == len(document["images"])
        assert len(stray) <= len(document["annotations"])


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@examples(200)
@given(
    items=st.lists(values, max_size=12),
    rest=st.dictionaries(st.text(max_size=6), values, max_size=3),
    chunk=st.integers(1, 64),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_the_stream_finds_every_element_whatever_the_chunk(
    tmp_path_factory: pytest.TempPathFactory,
    items: list[Any],
    rest: dict[str, Any],
    chunk: int,
    ascii_only: bool,
    indent: int | None,
) -> None:
    document = {**rest, "images": items}
    raw = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode(
        "utf-8", "surrogatepass"
    )
    path = tmp_path_factory.getbasetemp() / "stream.json"
    path.write_bytes(raw)
    before, json_elements.CHUNK = json_elements.CHUNK, chunk
    try:
        with path.open("rb") as file:
            found = list(json_elements.read(file, "stream.json", ["images"]))
    finally:
        json_elements.CHUNK = before
    assert [
        json.loads(raw[start : start + len(text)].decode("utf-8", "surrogatepass"))
        for _, start, text, _ in found
    ] == items
