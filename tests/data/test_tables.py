"""Tables and lists as people write them, and names in them that would lead elsewhere."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipelines import config
from pipelines.data import index
from pipelines.data.example import Example, Loaded
from pipelines.data.listing import Listing
from pipelines.data.manifest import Manifest
from pipelines.data.sources import coco, csv, voc
from pipelines.usage import UsageError, file_name
from tests.conftest import Trellis
from tests.data.conftest import coco as instances
from tests.data.conftest import coco_at
from tests.data.test_links import TOLERANT, rejects
from tests.data.test_sources import picture
from tests.data.test_sources import voc as pascal

Build = Callable[..., Manifest]


def table(folder: Path, *rows: str, header: str = "path,label,part", count: int = 6) -> list[str]:
    for number in range(count):
        picture(folder / "images" / f"{number}.png", colour=number)
    (folder / "table.csv").write_text("\n".join([header, *rows]))
    return [
        "dataset=csv",
        f"dataset.images={folder}/images",
        f"dataset.annotations={folder}/table.csv",
    ]


def test_blanks_after_commas_are_no_part_of_a_label(build: Build, tmp_path: Path) -> None:
    rows = [
        "0.png, a, train",
        '1.png, "b", train',
        " 2.png ,a ,train",
        "3.png,a, val",
        "   ",
        "4.png",
    ]
    given = table(tmp_path, *rows, header="path, label , part")
    built = build(*given, "dataset.columns.split=part", TOLERANT)
    assert built.labels == ("a", "b") and rejects(built) == {"4.png": "unknown_class"}
    assert {name: split.examples for name, split in built.splits.items()} == {
        "train": 3,
        "validation": 1,
    }


def test_a_split_that_leads_elsewhere_or_is_misspelt_is_rejected(
    build: Build, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    rows = [
        "0.png,a,train",
        "1.png,b,tset",
        f"2.png,a,{outside}/x",
        "3.png,a,../x",
        "4.png,b,Testing",
        "5.png,a,",
    ]
    built = build(
        *table(tmp_path, *rows),
        "dataset.columns.split=part",
        TOLERANT,
        "dataset.validation_fraction=0",
    )
    assert rejects(built) == {
        "1.png": "unknown_split",
        "2.png": "unknown_split",
        "3.png": "unknown_split",
    }
    assert {name: split.examples for name, split in built.splits.items()} == {"test": 1, "train": 2}
    assert "did you mean test" in (Path(built.directory) / "rejects.jsonl").read_text()
    assert not outside.exists() and not (tmp_path / "x.jsonl").exists()


def test_no_index_or_shard_is_named_by_a_path(tmp_path: Path) -> None:
    example = Example("../train", "key", "file", "name", "content", {})
    with pytest.raises(UsageError, match=r"split: '\.\./train' cannot be part of a file's name"):
        index.write(str(tmp_path / "index"), [example], None, "recipe")
    assert not list(tmp_path.glob("*.jsonl"))


def test_an_index_that_cannot_be_finished_leaves_no_file_open(tmp_path: Path) -> None:
    examples = [Example(split, "key", "file", "name", "content") for split in ("train", "../train")]
    with pytest.raises(UsageError) as error:
        index.write(str(tmp_path), examples, None, "recipe")
    assert error.tb and (tmp_path / "train.jsonl").exists()
    assert not [file for file in psutil.Process().open_files() if str(tmp_path) in file.path]


@pytest.mark.parametrize(
    "word",
    ["", "..", ".hidden", "a/b", "a\\b", "/etc", "a\0", "a\nb", "\udce9", "x" * 200, "*", "a[1]"],
)
def test_a_word_that_would_lead_elsewhere_is_no_file_name(word: str) -> None:
    with pytest.raises(UsageError, match="what: .* cannot be part of a file's name: "):
        file_name(word, "what")


@pytest.mark.parametrize("word", ["train", "größe 2", "a-b_c.d", "coco2017", "日本"])
def test_an_ordinary_word_is_a_file_name(word: str) -> None:
    assert file_name(word, "what") == word


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("name=../../x", r"name: '\.\./\.\./x' cannot be"),
        ("dataset.name=/tmp/x", "dataset.name: '/tmp/x' cannot be"),
    ],
)
def test_names_of_runs_and_data_sets_stay_in_their_folders(override: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        config.compose(["dataset=digits", override])
    recorded = config.to_yaml(config.compose(["dataset=digits"])).replace(
        "name: digits", "name: ../digits"
    )
    with pytest.raises(UsageError, match=r"dataset.name: '\.\./digits' cannot be"):
        config.from_yaml(recorded)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["dataset.images={train:a,tset:b}"],
            "dataset.images: there is no split 'tset'; did you mean test",
        ),
        (
            ["dataset.images=a", "dataset.shards={trian:2}"],
            "dataset.shards: there is no split 'trian'; did you mean train",
        ),
        (
            ["dataset.images=a", "dataset.shards={train:-3}"],
            "dataset.shards.train: -3 is no count from 1 to 10000",
        ),
    ],
)
def test_a_split_that_nothing_trains_on_is_refused(
    build: Build, overrides: list[str], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        build("dataset=image_folder", *overrides)


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("", [], "table.csv: the table is empty"),
        (
            "path,label\n",
            ["dataset.columns={label:null}"],
            "dataset.columns.label: a table cannot do without",
        ),
        ("path,label\n", ["dataset.columns=abc"], "dataset.columns: 'abc' is no mapping"),
        ("\x1b[2J,b\n", [], r"the columns are \\x1b\[2J, b"),
        (None, [], "table.csv is a folder; give the file in it"),
    ],
)
def test_a_table_that_is_none_is_named(
    build: Build, tmp_path: Path, text: str | None, overrides: list[str], says: str
) -> None:
    given = table(tmp_path)
    (tmp_path / "table.csv").unlink()
    (tmp_path / "table.csv").mkdir() if text is None else (tmp_path / "table.csv").write_text(text)
    with pytest.raises(UsageError, match=says):
        build(*given, *overrides)


def test_voc_locations_may_be_given_by_split(build: Build, tmp_path: Path) -> None:
    one, two = pascal(tmp_path / "one"), pascal(tmp_path / "two")
    places = [
        f"dataset.{field}={{train:{one}/{name},validation:{two}/{name}}}"
        for field, name in (("images", "JPEGImages"), ("annotations", "Annotations"))
    ]
    built = build(
        "dataset=voc",
        "dataset.root=null",
        "dataset.lists=null",
        *places,
        "dataset.labels=null",
        TOLERANT,
    )
    assert {name: split.examples for name, split in built.splits.items()} == {
        "train": 6,
        "validation": 6,
    }
    with pytest.raises(
        UsageError, match="dataset.images has train, other locations have validation"
    ):
        build("dataset=voc", f"dataset.root={one}", "dataset.images={train:JPEGImages}")
    with pytest.raises(UsageError, match="ImageSets/Main is a folder; give the file in it"):
        build("dataset=voc", f"dataset.root={one}", "dataset.lists=ImageSets/Main")


def test_voc_objects_go_with_their_image_and_one_pixel_is_a_box(
    build: Build, tmp_path: Path
) -> None:
    root = pascal(tmp_path / "voc")
    (root / "JPEGImages" / "1.jpg").write_bytes(b"no image")
    (root / "JPEGImages" / "2.jpg").unlink()
    thin = root / "Annotations" / "3.xml"
    thin.write_text(thin.read_text().replace("<xmin>9</xmin>", "<xmin>3</xmin>"))
    built = build(
        "dataset=voc",
        f"dataset.root={root}",
        "dataset.labels=[cat,dog,cow]",
        "dataset.lists=null",
        TOLERANT,
    )
    assert built.rejects == {"image_missing": 1, "image_unreadable": 1, "box_empty": 3}
    counts = {name: count for name, count in built.counts.items() if name.startswith("objects")}
    assert counts == {
        "objects_read": 18, "objects_written": 9, "objects_rejected": 3, "objects_of_rejected_examples": 6,
    }  # fmt: skip


def test_a_source_that_loses_an_object_stops_the_build(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = instances(tmp_path / "images")
    whole = coco.load

    def careless(*arguments: object) -> Loaded:
        loaded = whole(*arguments)
        del loaded.record["objects"][0]
        return loaded

    monkeypatch.setattr(coco, "load", careless)
    with pytest.raises(
        RuntimeError,
        match="internal error in source coco: 30 objects were read, 20 were written or rejected",
    ):
        build(
            *coco_at(file),
            "runner=direct",
        )
    assert not list((tmp_path / "data").glob("coco-*/manifest.json"))


def test_a_source_that_loses_an_example_stops_the_build(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = csv.listing

    def careless(*arguments: object) -> Listing:
        listing = whole(*arguments)
        return Listing(listing.labels, False, list(listing.items)[1:], tally=listing.tally)

    monkeypatch.setattr(csv, "listing", careless)
    with pytest.raises(
        RuntimeError,
        match="internal error in source csv: 3 examples were read, 2 were written or rejected",
    ):
        build(*table(tmp_path, "0.png,a,", "1.png,b,", "2.png,a,"), "dataset.validation_fraction=0")


def test_a_source_that_counts_no_object_of_voc_stops_the_build(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voc, "objects", lambda example, request: 2)
    with pytest.raises(
        RuntimeError, match="internal error in source voc: 12 objects were read, 18 were"
    ):
        build(
            "dataset=voc",
            f"dataset.root={pascal(tmp_path / 'voc')}",
            "dataset.lists=null",
            TOLERANT,
            "runner=direct",
        )


def test_a_misspelt_task_is_refused_with_the_nearest(trellis: Trellis, tmp_path: Path) -> None:
    said = trellis(
        "data", "dataset=digits", "dataset.task=detecton", f"data_dir={tmp_path}", code=2
    )
    assert (
        "dataset.task: no task 'detecton'; did you mean detection" in said
        and "Traceback" not in said
    )
