"""Over generated folders, tables and annotations: no crash, counts that add up with what was put in, records that decode.

Names are as odd as a file system allows, links lead everywhere. Every case is built twice, its files made in opposite order: the
records are the same in every byte, and nothing but `data_dir` was written to. A loop takes the place of Beam, whose start would
be most of each case; that Beam comes to the same is in `test_runners.py`.
"""

import contextlib
import csv
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from etils import epath
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

import tasks
from pipelines.config import Dataset
from pipelines.data import build, content, manifest, records, shards
from pipelines.data.description import Commission
from pipelines.data.manifest import Manifest
from pipelines.system import tfrecord
from pipelines.usage import UsageError
from tests.fuzzing import examples, mutated

HEIGHT, WIDTH = 12, 16


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


GREYS = [np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8) for number in range(3)]
PICTURES = {
    ".jpg": [encoded(grey, "jpeg") for grey in GREYS],
    ".JPEG": [encoded(grey, "jpeg") for grey in GREYS],
    ".png": [encoded(grey, "png") for grey in GREYS],
    ".bmp": [encoded(grey, "bmp") for grey in GREYS],
}
BROKEN = [b"", b"\xff\xd8\xff", PICTURES[".png"][0][:50], b"GIF89a", b"no picture"]
ODD_ENDINGS = [".xyz", "", ".", ".jpg ", ".jpg~", ".mp4"]
BESIDE = ["README.txt", "Thumbs.db", "notes.md", "LICENSE", "labels.csv"]

letters = [
    "a",
    "b",
    "Z",
    "0",
    " ",
    "[",
    "]",
    "*",
    "?",
    "{",
    "}",
    "\n",
    "\r",
    "\t",
    "\x1b",
    "\x7f",
    "\u202e",
    "'",
    '"',
    "\\",
    "%",
    "$",
    "~",
    "#",
    ",",
    ";",
    "-",
    "ü",
    "\u0308",
    "日",
    "\udcff",
    ".",
]
odd_names = st.text(st.sampled_from(letters), min_size=1, max_size=8)
plain_names = st.text("abc019_", min_size=1, max_size=3)
names = st.one_of(plain_names, odd_names, st.just("x" * 200)).filter(
    lambda name: not name.startswith(".")
)
classes = st.sampled_from(["cat", "dog", "a b", "[x]", "*", "new\nline", "ü", "-"])


def is_text(name: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in name)


@dataclass(frozen=True)
class Entry:
    """Something in a folder: what kind of thing, its path inside, what it holds or where it leads."""

    kind: str  # file, link, pipe, folder
    name: str
    holds: Any = b""
    read: int = 1  # examples that a source has to count for it
    good: bool = False  # one of them has to be written


def make(root: Path, entry: Entry) -> None:
    path = root / entry.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.kind == "folder":
        path.mkdir(exist_ok=True)
    elif entry.kind == "pipe":
        os.mkfifo(path)
    elif entry.kind == "link":
        os.symlink(entry.holds, path)
    else:
        path.write_bytes(entry.holds)


def without_clashes(entries: Sequence[Entry]) -> list[Entry]:
    """The first of each name, and nothing below what is no folder."""
    taken: dict[str, Entry] = {}
    for entry in entries:
        above = [str(parent) for parent in Path(entry.name).parents]
        below = any(name.startswith(f"{entry.name}/") for name in taken)
        if entry.name not in taken and not any(name in taken for name in above) and not below:
            taken[entry.name] = entry
    return list(taken.values())


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of all that lies in a folder; links are not followed."""
    found = {}
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            seen = os.lstat(os.path.join(here, name))
            found[os.path.join(here, name)] = (
                0 if stat.S_ISDIR(seen.st_mode) else seen.st_size,
                seen.st_mtime_ns,
            )
    return found


def write_all(job: shards.Job, runner: dict[str, Any]) -> None:
    """What Beam does with a job, in a loop."""
    located: dict[str, list] = {}
    for split in job.index.examples:
        for part in range(2):
            for shard, position in shards.positions((split, part, 2), job):
                located.setdefault(shard, []).append(position)
    for grouped in located.items():
        shards.write(grouped, job)


@contextlib.contextmanager
def without_beam() -> Iterator[None]:
    before, records.write = records.write, write_all
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        records.write = before


def built(root: Path, dataset: Dataset, entries: Sequence[Entry]) -> Manifest | str:
    """The data set as built from files that are made now, or what the user is told; looks that nothing else is touched."""
    for name in ("source", "outside", "data"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir()
    (root / "outside" / "there.jpg").write_bytes(PICTURES[".jpg"][0])
    for entry in entries:
        make(root / "source", entry)
    before = {place: state(root / place) for place in ("source", "outside")}
    task, data_dir = tasks.load(dataset.task), str(root / "data")
    try:
        with without_beam():
            found = content.find(data_dir, dataset)
            folder = manifest.directory(data_dir, dataset, task.VERSION, found)
            return build.run(Commission(dataset, task, epath.Path(folder), found, runner={}))
    except UsageError as error:
        assert str(error).strip() and not any(letter in str(error) for letter in "\x1b\u202e\udcff")
        return str(error)
    finally:
        assert {place: state(root / place) for place in before} == before
        assert {entry.name for entry in os.scandir(root)} == {"source", "outside", "data"}


def twice(dataset: Dataset, entries: Sequence[Entry]) -> Manifest | str:
    """The same from files made in this order and in the opposite one, which has to come to the same."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(os.path.realpath(scratch))
        placed = replace(
            dataset, **{name: f"{root}/source/{value}" for name, value in places(dataset).items()}
        )
        first = built(root, placed, entries)
        decoded = (
            [len(decode(first, split)) for split in first.splits]
            if isinstance(first, Manifest)
            else []
        )
        second = built(root, placed, entries[::-1])
        if isinstance(first, str) or isinstance(second, str):
            assert first == second
            return first
        assert first.to_json() == second.to_json()
        assert decoded == [split.examples for split in first.splits.values()]
        assert_that_counts_add_up(second)
        return second


def places(dataset: Dataset) -> dict[str, str]:
    given = {name: getattr(dataset, name) for name in ("images", "annotations", "masks", "lists")}
    return {name: value for name, value in given.items() if value}


def decode(data: Manifest, split: str) -> list[dict[str, Any]]:
    """Every record of a split, its image decoded."""
    found = []
    for shard in data.splits[split].shards:
        with open(os.path.join(data.directory, shard.file), "rb") as file:
            for serialized in tfrecord.read(file):
                record = tasks.load(data.task).decode(serialized)
                assert np.asarray(Image.open(io.BytesIO(record["image"]))).shape[:2] == (
                    HEIGHT,
                    WIDTH,
                )
                found.append(record)
    return found


def assert_that_counts_add_up(data: Manifest) -> None:
    counts = data.counts
    assert counts["examples_read"] == counts["examples_written"] + counts["examples_rejected"]
    assert (
        counts["objects_read"]
        == counts["objects_written"]
        + counts["objects_rejected"]
        + counts["objects_of_rejected_examples"]
    )
    assert counts["examples_written"] == sum(split.examples for split in data.splits.values())
    lines = Path(data.directory, manifest.REJECTS).read_text().splitlines()
    assert (
        len(lines)
        == sum(data.rejects.values())
        == counts["examples_rejected"] + counts["objects_rejected"]
    )


def prepared(source: str, task: str, **fields: Any) -> Dataset:
    return Dataset(
        name="some",
        task=task,
        source=source,
        validation_fraction=0.0,
        max_reject_fraction=1.0,
        validate="none",
        **fields,
    )


# Class folders.

pictures = st.builds(
    lambda ending, number: (ending, PICTURES[ending][number]),
    st.sampled_from([*PICTURES]),
    st.integers(0, 2),
)
targets = st.sampled_from(
    [
        "../../outside",
        "../../outside/there.jpg",
        "../aim",
        "../aim/1.jpg",
        "..",
        ".",
        "self",
        "../../nothing",
        "/",
        "/etc/hostname",
        "../..",
        "",
    ]
)


@st.composite
def class_entries(draw: st.DrawFn) -> Entry:
    """One thing in a folder of classes, with what has to be counted for it."""
    label, name = draw(classes), draw(names)
    kind = draw(
        st.sampled_from(
            ["image"] * 6 + ["broken", "odd", "beside", "hidden", "link", "pipe", "deep", "empty"]
        )
    )
    ending, picture = draw(pictures)
    path = f"{label}/{name}"
    if kind in ("image", "deep"):
        path = f"{path}/{draw(names)}" if kind == "deep" else path
        return Entry("file", path + ending, picture, good=is_text(path))
    if kind == "broken":
        return Entry("file", path + ending, draw(st.sampled_from(BROKEN)))
    if kind == "odd":
        return Entry("file", f"{label}/{name}" + draw(st.sampled_from(ODD_ENDINGS)), picture)
    if kind == "beside":
        return Entry("file", f"{label}/{draw(st.sampled_from(BESIDE))}", b"text", read=0)
    if kind == "hidden":
        return Entry("file", f"{label}/.{name}{ending}", picture, read=0)
    if kind == "pipe":
        return Entry("pipe", path + ending)
    if kind == "empty":
        return Entry("folder", f"{label}/{name}", read=0)
    return link(path + draw(st.sampled_from(["", ending])), draw(targets))


def link(path: str, target: str) -> Entry:
    """A link; one file of the folder `aim` is an image, and so is one in the folder `outside`, which is not named."""
    if target == "self" or not target:
        target = Path(path).name
    into_file, into_folder = target == "../aim/1.jpg", target == "../aim"
    image = path.lower().endswith((".jpg", ".jpeg", ".png", ".bmp"))
    good = is_text(path) and (into_folder or (into_file and image))
    return Entry("link", path, target, read=1, good=good)


NOT_UTF8 = Entry("file", "\udcff/1.jpg", PICTURES[".jpg"][0])
AIM = Entry("file", "aim/1.jpg", PICTURES[".jpg"][2], good=True)


@examples(40)
@given(entries=st.lists(class_entries(), max_size=30), aimed=st.booleans())
@example(entries=[Entry("link", "cat/1", "../aim", good=True)], aimed=True).via(
    "a linked class vanished"
)
@example(entries=[Entry("link", "cat/1.jpg", "../../nothing")], aimed=True).via(
    "a broken link vanished"
)
@example(entries=[NOT_UTF8], aimed=True).via(
    "the name of a class is none of the words that a manifest holds"
)
def test_class_folders_lose_nothing_silently(entries: list[Entry], aimed: bool) -> None:
    entries = without_clashes([*([AIM] if aimed else []), *entries])
    if not aimed:
        entries = [
            replace(entry, good=False) if entry.kind == "link" else entry for entry in entries
        ]
    data = twice(prepared("image_folder", "classification", images="."), entries)
    good = sum(entry.good for entry in entries)
    if isinstance(data, str):
        assert not good or NOT_UTF8 in entries
    else:
        assert data.counts["examples_read"] == sum(entry.read for entry in entries)
        assert data.counts["examples_written"] == good


# Masks beside images.

mask_pixels = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 3
MASK = encoded(mask_pixels, "png")
BAD_MASKS = [
    encoded(mask_pixels + 7, "png"),
    encoded(mask_pixels[1:], "png"),
    PICTURES[".png"][1],
    b"",
    b"\x89PNG\r\n\x1a\n",
    MASK[:50],
]
PAIRS = ["both"] * 6 + [
    "image",
    "mask",
    "bad mask",
    "bad image",
    "two images",
    "two masks",
    "linked out",
    "linked in",
    "beside",
]


@st.composite
def pairs(draw: st.DrawFn) -> list[Entry]:
    """An image and its mask, or what is left of them; the first entry carries the count."""
    name, kind = draw(names).rstrip(".") + "z", draw(st.sampled_from(PAIRS))
    image, mask = f"images/{name}.jpg", f"masks/{name}.png"
    painted = Entry("file", mask, MASK, read=0)
    taken = Entry("file", image, PICTURES[".jpg"][draw(st.integers(0, 2))], good=is_text(name))
    lost = replace(taken, good=False)
    return {
        "both": [taken, painted],
        "image": [lost],
        "mask": [replace(painted, read=1)],
        "bad mask": [lost, replace(painted, holds=draw(st.sampled_from(BAD_MASKS)))],
        "bad image": [replace(lost, holds=draw(st.sampled_from(BROKEN))), painted],
        "two images": [taken, painted, Entry("file", f"images/{name}.png", PICTURES[".png"][0])],
        "two masks": [taken, painted, Entry("file", f"masks/{name}.bmp", MASK)],
        "linked out": [
            Entry(
                "link",
                image,
                draw(st.sampled_from(["../../outside/there.jpg", "/etc/hostname", "x", "."])),
            ),
            painted,
        ],
        "linked in": [
            Entry("link", image, "../masks/" + f"{name}.png", good=is_text(name)),
            painted,
        ],
        "beside": [
            Entry("file", "images/README.txt", b"x", read=0),
            Entry("file", "masks/Thumbs.db", b"x", read=0),
        ],
    }[kind]


def apart(groups: list[list[Entry]]) -> list[Entry]:
    """Groups of which none names what another one names, even with another ending."""
    taken: dict[str, list[Entry]] = {}
    for group in groups:
        taken.setdefault(Path(group[0].name).stem, group)
    return [entry for group in taken.values() for entry in group]


@examples(40)
@given(groups=st.lists(pairs(), max_size=12))
def test_masks_and_images_lose_nothing_silently(groups: list[list[Entry]]) -> None:
    entries = [Entry("folder", "images", read=0), Entry("folder", "masks", read=0), *apart(groups)]
    dataset = prepared(
        "mask_folder", "segmentation", images="images", masks="masks", labels=["x", "y", "z"]
    )
    data = twice(dataset, entries)
    good = sum(entry.good for entry in entries)
    if isinstance(data, str):
        assert not good
    else:
        assert data.counts["examples_read"] == sum(entry.read for entry in entries)
        assert data.counts["examples_written"] == good


# Tables.

FILES = {
    "1.jpg": PICTURES[".jpg"][0],
    "a b.png": PICTURES[".png"][1],
    "in/[2].jpg": PICTURES[".jpg"][2],
    "bad.jpg": b"\xff\xd8",
    "new\nline.jpg": PICTURES[".jpg"][1],
}
table_paths = st.one_of(
    st.sampled_from([*FILES] * 3),
    st.sampled_from(
        [
            "",
            " 1.jpg",
            "./1.jpg",
            "../1.jpg",
            "/etc/hostname",
            "in",
            "out.jpg",
            "none.jpg",
            "in//[2].jpg",
            "1.jpg/",
        ]
    ),
    odd_names.filter(lambda name: is_text(name)),
)
table_labels = st.one_of(
    st.sampled_from(["cat", "dog", " cat", "a,b", 'quo"te', "two\nlines", "", "ü"]),
    odd_names.filter(lambda name: is_text(name)),
)
table_splits = st.sampled_from(["", "train", "val", "Train ", "tset", "../x", "/tmp/x", "test"])
rows = st.tuples(table_paths, table_labels, table_splits)


def table(lines: Sequence[Sequence[str]], dialect: str) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(
        file,
        quoting=csv.QUOTE_ALL if dialect == "unix" else csv.QUOTE_MINIMAL,
        lineterminator="\n" if dialect == "unix" else "\r\n",
    )
    writer.writerows([["path", "label", "split"], *lines])
    return file.getvalue().encode("utf-8-sig" if dialect == "mark" else "utf-8")


TABLED = [Entry("file", f"images/{name}", holds) for name, holds in FILES.items()]
TABLE = prepared(
    "csv", "classification", images="images", annotations="table.csv", columns={"split": "split"}
)


@examples(40)
@given(lines=st.lists(rows, max_size=30), dialect=st.sampled_from(["minimal", "unix", "mark"]))
@example(lines=[("1.jpg", "cat", ""), ("1.jpg", "cat", "../x")], dialect="unix").via(
    "a split was written outside of data_dir"
)
def test_tables_lose_nothing_silently(lines: list[tuple[str, str, str]], dialect: str) -> None:
    data = twice(TABLE, [*TABLED, Entry("file", "table.csv", table(lines, dialect))])
    if not isinstance(data, str):
        filled = ["".join(line).strip() != "" for line in lines]
        assert data.counts["examples_read"] == sum(filled)
        assert {*data.splits} <= {"train", "validation", "test"}


SOME_TABLE = table(
    [("1.jpg", "cat", ""), ("a b.png", "dog", "val"), ("bad.jpg", "x,y", "")], "unix"
)


@examples(40)
@given(raw=mutated([SOME_TABLE], most=3))
@example(raw=b"")
@example(raw=b"\n")
@example(raw=SOME_TABLE.replace(b"cat", b'"cat'))
def test_a_damaged_table_is_read_or_refused(raw: bytes) -> None:
    twice(TABLE, [*TABLED, Entry("file", "table.csv", raw)])


# Pascal VOC.

numbers = st.sampled_from(
    [
        "1",
        "3",
        "9",
        "12",
        "16",
        "-4",
        "0",
        "1.5",
        "100",
        "nan",
        "inf",
        "1e999",
        "",
        "x",
        " 7 ",
        "9" * 5000,
        "٣",
    ]
)
voc_objects = st.fixed_dictionaries(
    {
        "name": st.one_of(
            st.sampled_from(["cat", "dog", " cat", ""]), odd_names.filter(str.isprintable)
        )
    },
    optional={
        **dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), numbers),
        "difficult": st.sampled_from(["0", "1", "x", ""]),
    },
)
fitting = st.just({"name": "cat", "xmin": "2", "ymin": "2", "xmax": "9", "ymax": "9"})


def annotation(objects: Sequence[dict[str, str]], size: str = "") -> bytes:
    """VOC's XML; text that XML cannot hold is left out."""
    nodes = []
    for item in objects:
        sides = "".join(
            f"<{side}>{escape(item[side])}</{side}>"
            for side in ("xmin", "ymin", "xmax", "ymax")
            if side in item
        )
        nodes.append(
            f"<object><name>{escape(item['name'])}</name><bndbox>{sides}</bndbox><difficult>{item.get('difficult', '0')}</difficult></object>"
        )
    return f"<annotation>{size}{''.join(nodes)}</annotation>".encode("utf-8", "replace")


SIZES = [
    "",
    f"<size><height>{HEIGHT}</height><width>{WIDTH}</width></size>",
    "<size><height>1</height></size>",
    "<size/>",
]
NO_ANNOTATIONS = [
    b"",
    b"<annotation>",
    b"<?xml version='1.0' encoding='none'?><annotation/>",
    b"<?xml version='1.0' encoding='utf-16'?><a/>",
    b"\xff\xfe<",
    b"<a>&x;</a>",
]


@st.composite
def scenes(draw: st.DrawFn) -> tuple[str, list[Entry], int]:
    """Name, files and number of objects of one image with its annotation, or of what is left of them."""
    name = draw(names).rstrip(".") + "z"
    kind = draw(
        st.sampled_from(
            ["both"] * 6
            + [
                "no image",
                "no annotation",
                "no xml",
                "bad image",
                "link out",
                "link nowhere",
                "two images",
            ]
        )
    )
    objects = draw(st.lists(st.one_of(fitting, voc_objects), max_size=4))
    xml = Entry(
        "file", f"annotations/{name}.xml", annotation(objects, draw(st.sampled_from(SIZES)))
    )
    image = Entry("file", f"images/{name}.jpg", PICTURES[".jpg"][draw(st.integers(0, 2))])
    files = {
        "both": [image, xml],
        "no image": [xml],
        "no annotation": [image],
        "no xml": [image, replace(xml, holds=draw(st.sampled_from(NO_ANNOTATIONS)))],
        "bad image": [replace(image, holds=draw(st.sampled_from(BROKEN))), xml],
        "link out": [Entry("link", image.name, "../../outside/there.jpg"), xml],
        "link nowhere": [image, Entry("link", xml.name, "nowhere")],
        "two images": [image, xml, Entry("file", f"images/{name}.png", PICTURES[".png"][0])],
    }[kind]
    return name, files, 0 if kind in ("no annotation", "no xml", "link nowhere") else len(objects)


def is_annotated(files: Sequence[Entry]) -> bool:
    """Whether a scene has an annotation."""
    return any(entry.name.startswith("annotations/") for entry in files)


VOC = prepared("voc", "detection", images="images", annotations="annotations")
EMPTY = [Entry("folder", "images", read=0), Entry("folder", "annotations", read=0)]


@examples(40)
@given(
    drawn=st.lists(scenes(), max_size=12, unique_by=lambda scene: scene[0]),
    lines=st.none() | st.lists(st.integers(0, 14), max_size=14),
)
@example(
    drawn=[
        (
            "z",
            [
                Entry("file", "images/z.jpg", b""),
                Entry("file", "annotations/z.xml", annotation([{"name": "cat"}] * 3)),
            ],
            3,
        )
    ],
    lines=[0, 0],
)
def test_voc_loses_nothing_silently(
    drawn: list[tuple[str, list[Entry], int]], lines: list[int] | None
) -> None:
    entries = [*EMPTY, *(entry for _, files, _ in drawn for entry in files)]
    annotated = [scene for scene in drawn if is_annotated(scene[1])]
    dataset, listed = VOC, annotated
    if lines is not None:
        nameable = [
            scene for scene in drawn if scene[0].split() == [scene[0]] and is_text(scene[0])
        ]
        listed = [
            nameable[line] if line < len(nameable) else (f"none{line}", [], 0) for line in lines
        ]
        entries.append(
            Entry("file", "list.txt", "".join(f"{name} 1\n" for name, _, _ in listed).encode())
        )
        dataset = replace(VOC, lists="list.txt")
    data = twice(dataset, entries)
    if not isinstance(data, str):
        assert data.counts["examples_read"] == len(listed)
        assert data.counts["objects_read"] == sum(count for _, _, count in listed)


@examples(40)
@given(
    raw=mutated(
        [
            annotation(
                [{"name": "cat", "xmin": "2", "ymin": "2", "xmax": "9", "ymax": "9"}] * 2, SIZES[1]
            )
        ]
    )
)
@example(raw=NO_ANNOTATIONS[2]).via("an encoding that there is not")
@example(raw=NO_ANNOTATIONS[3])
def test_a_damaged_annotation_is_read_or_rejected(raw: bytes) -> None:
    whole = Entry(
        "file",
        "annotations/whole.xml",
        annotation([{"name": "cat", "xmin": "2", "ymin": "2", "xmax": "9", "ymax": "9"}]),
    )
    images = [
        Entry("file", f"images/{name}.jpg", PICTURES[".jpg"][0]) for name in ("whole", "other")
    ]
    data = twice(VOC, [*EMPTY, *images, whole, Entry("file", "annotations/other.xml", raw)])
    assert (
        isinstance(data, Manifest)
        and data.counts["examples_read"] == 2
        and data.counts["examples_written"] >= 1
    )
