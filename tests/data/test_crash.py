"""A build that is killed, raced or starved of disk leaves nothing that is taken for data."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import compose
from pipelines.data import index, keys
from pipelines.data.keys import ALL
from pipelines.data.manifest import Manifest
from tests.data.conftest import coco
from tests.data.test_store import digests, lengths

Build = Callable[..., Manifest]


def command(root: Path, data_dir: Path, *more: str) -> list[str]:
    overrides = [
        f"dataset.images={root}/images",
        f"dataset.annotations={root}/images.json",
        "dataset.shards={train:8}",
        "dataset.validate=none",
    ]
    return [
        sys.executable,
        "-m",
        "pipelines",
        "data",
        "dataset=coco",
        *overrides,
        f"data_dir={data_dir}",
        *more,
    ]


def start(arguments: list[str], **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **more,
    )  # type: ignore[call-overload]


def leftovers(folder: Path) -> list[str]:
    names = [
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if not file.name.endswith((".tfrecord", ".tfrecord.lengths", ".tfrecord.examples"))
    ]
    return [
        name
        for name in names
        if name
        not in ("manifest.json", "rejects.jsonl", "shards.json", ".shards", ".shards/checks.json")
    ]


@pytest.mark.slow
def test_killed_at_random_moments_then_run_again_gives_the_same_bytes(
    build: Build, tmp_path: Path
) -> None:
    coco(tmp_path / "images", 400)
    whole = build(*command(tmp_path, tmp_path)[4:-1])
    moments = random.Random(0)
    started = time.monotonic()
    subprocess.run(command(tmp_path, tmp_path / "timed"), check=True, capture_output=True)
    duration = time.monotonic() - started
    for attempt in range(4):
        data_dir = tmp_path / f"attempt{attempt}"
        for _ in range(2):
            victim = start(command(tmp_path, data_dir))
            time.sleep(moments.uniform(0.3, 1.0) * duration)
            os.killpg(victim.pid, signal.SIGKILL)
            victim.communicate()
        subprocess.run(command(tmp_path, data_dir), check=True, capture_output=True)
        again = build(*command(tmp_path, tmp_path)[4:-1], data_dir=data_dir)
        assert (
            digests(again) == digests(whole)
            and again == whole
            and lengths(again, "train") == lengths(whole, "train")
        )
        assert leftovers(Path(again.directory)) == []


@pytest.mark.slow
def test_killed_while_a_shard_is_being_written(build: Build, tmp_path: Path) -> None:
    coco(tmp_path / "images", 2000)
    victim = start(command(tmp_path, tmp_path / "data"))
    until = time.monotonic() + 300
    while (
        not list((tmp_path / "data").glob("coco-*/.shards/*.summary.json"))
        and time.monotonic() < until
    ):
        time.sleep(0.002)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.communicate()
    (folder,) = (tmp_path / "data").glob("coco-*")
    assert not (folder / "manifest.json").exists()
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("*.tfrecord")}
    built = build(*command(tmp_path, tmp_path)[4:-1])
    assert kept and all(
        file.stat().st_mtime_ns == time_of for file, time_of in list(kept.items())[:1]
    )
    assert built == build(*command(tmp_path, tmp_path)[4:-1], data_dir=tmp_path / "other")
    assert leftovers(Path(built.directory)) == []


@pytest.mark.slow
def test_of_two_builds_at_once_one_builds_and_the_other_takes_its_data(tmp_path: Path) -> None:
    coco(tmp_path / "images", 300)
    both = [start(command(tmp_path, tmp_path / "data")) for _ in range(2)]
    output = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("wrote" in text for text in output) == 1
    assert len(list((tmp_path / "data").glob("coco-*/manifest.json"))) == 1


def starved(arguments: list[str], most: int) -> str:
    """What a build says when no file may grow beyond so many bytes, the way a full disk or a quota ends a write."""

    def starve() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    victim = start(arguments, preexec_fn=starve)
    output = victim.communicate()[0]
    assert victim.returncode == 2 and "File too large" in output, output
    return output


def test_a_full_disk_is_said_and_nothing_half_written_is_found(
    build: Build, tmp_path: Path
) -> None:
    coco(tmp_path / "images", 60)
    output = starved([*command(tmp_path, tmp_path / "data"), "dataset.shards={train:1}"], 20_000)
    assert "make room" in output and "Traceback" not in output
    assert not list((tmp_path / "data").glob("coco-*/*.tfrecord")) and not list(
        (tmp_path / "data").glob("coco-*/manifest.json")
    )
    built = build(*command(tmp_path, tmp_path)[4:-1], "dataset.shards={train:1}")
    assert built.counts["examples_written"] == 60 and leftovers(Path(built.directory)) == []


def test_one_percent_changed_or_added_rewrites_only_the_shards_it_falls_into(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco(tmp_path / "images", 297)
    overrides = [*command(tmp_path, tmp_path)[4:7], "dataset.shards={train:32,validation:8}"]
    before = build(*overrides)
    coco(tmp_path / "images", 299)  # two more, the others written again with the same bytes
    (tmp_path / "images" / "007.jpg").write_bytes((tmp_path / "images" / "008.jpg").read_bytes())
    capsys.readouterr()
    after = build(*overrides)
    dataset = compose(overrides).dataset
    assert dataset is not None
    places = {
        (keys.chosen_split(ALL, key, dataset), keys.position(key)) for key in ("7", "298", "299")
    }
    expected = {
        index.shard_name(
            split, position % len(after.splits[split].shards), len(after.splits[split].shards)
        )
        for split, position in places
    }
    assert (
        f"{40 - len(expected)} of 40 shards are as they were; writing {len(expected)}"
        in capsys.readouterr().out
    )
    for split in after.splits.values():
        for shard in split.shards:
            for name in (shard.file, f".shards/{shard.file}.lengths"):
                old, new = (Path(built.directory, name).stat() for built in (before, after))
                assert (old.st_ino == new.st_ino and old.st_mtime_ns == new.st_mtime_ns) == (
                    shard.file not in expected
                )
    assert build(*overrides, data_dir=tmp_path / "fresh") == after
