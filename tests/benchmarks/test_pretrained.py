"""What the benchmark of pretrained weights says of its runs, and which images they get; nothing here trains."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import pretrained
from benchmarks.pretrained import Bench, Part, Run, Trio
from pipelines.system import tfrecord
from pipelines.system.processes import ROOT

PART = Part("classification", ("experiment=elpv",), (4,), 80, "accuracy")


def trio(with_weights: float, without: float, longer: float) -> Trio:
    return Trio(Run(with_weights, 30, 80), Run(without, 20, 80), Run(longer, 31, 120))


APART = [trio(0.80, 0.70, 0.75), trio(0.82, 0.71, 0.74), trio(0.81, 0.72, 0.76)]


def test_a_gain_is_told_with_its_interval_pair_by_pair() -> None:
    assert pretrained.gain(APART, "scratch") == "+0.100 [+0.075, +0.125]"
    assert pretrained.gain(APART, "longer") == "+0.060 [+0.017, +0.103]"
    unsure = [trio(0.80, 0.70, 0.7), trio(0.70, 0.71, 0.7)]
    assert pretrained.gain(unsure, "scratch").endswith(", not told apart")
    assert pretrained.gain(APART[:1], "scratch") == "+0.100, no interval"


def test_the_page_has_a_row_for_each_size_with_the_time_of_every_side() -> None:
    kept = pretrained.row(PART, 1954, APART)
    elsewhere = {
        "machine": "A Processor, 4 cores",
        "cells": [*kept["classification, 1954"]["cells"]],
    }
    text = pretrained.page({**kept, "classification, 50": elsewhere})
    cells = "classification, accuracy | 1,954 | 80, longer 120 | 3 | 0.810 | 0.710 | +0.100 [+0.075, +0.125]"
    assert cells in text and "| 30, 20, 31 | B |" in text and "A: A Processor, 4 cores; B: " in text
    tables = [part for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_page_is_that_of_the_rows_on_record_in_the_order_of_the_suite() -> None:
    kept = json.loads(pretrained.KEPT.read_text())
    assert list(pretrained.in_order(kept)) == list(kept)
    assert (ROOT / "docs" / "pretrained.md").read_text() == pretrained.page(kept)


def bench(folder: Path, seconds: dict[str, float]) -> Bench:
    class Timed(Bench):
        """Trainings that take so long, and are not made."""

        def _run(self, side: str, size: int, seed: int, steps: int) -> Run:
            return Run(0.5, seconds[side] * steps / 80, steps)

    return Timed(PART, folder, folder)


@pytest.mark.parametrize(("scratch", "steps"), [(30.0, 80), (28.5, 80), (24.0, 160)])
def test_scratch_is_trained_longer_where_it_took_less_time(scratch, steps, tmp_path) -> None:
    found = bench(tmp_path, {"pretrained": 30.0, "scratch": scratch}).trio(4, 0)
    assert found.longer.steps == steps
    assert found.longer.cpu_s >= pretrained.ENOUGH * found.pretrained.cpu_s


def ten_images(folder: Path) -> None:
    """A built data set of ten records, each of one byte."""
    shard = folder / "train-00000-of-00001.tfrecord"
    with shard.open("wb") as stream:
        for number in range(10):
            stream.writelines(tfrecord.frame(bytes([number])))
    splits = {"train": {"shards": [{"file": shard.name}]}}
    document = {"dataset": "d", "task": "classification", "labels": ["a"], "splits": splits}
    (folder / "manifest.json").write_text(json.dumps(document))


def test_each_seed_has_other_images_while_there_are_any(tmp_path) -> None:
    ten_images(tmp_path)
    made = Bench(PART, tmp_path, tmp_path)
    chosen = []
    for seed in range(3):
        made._images(4, seed)
        file = tmp_path / "images" / f"d-4-{seed}" / "train-00000-of-00001.tfrecord"
        with file.open("rb") as stream:
            chosen.append([record[0] for record in tfrecord.read(stream)])
    assert chosen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]


def test_what_was_measured_by_the_same_command_here_is_not_made_again(
    tmp_path, monkeypatch
) -> None:
    ten_images(tmp_path)
    commands = []
    builds = []

    def trained(command) -> float:
        commands.append(command)
        run_dir = Path(command[-1].removeprefix("run_dir="))
        run_dir.mkdir()
        (run_dir / "summary.json").write_text('{"metrics": {"accuracy": 0.5}}')
        return 30.0

    monkeypatch.setattr(pretrained, "processor_time", trained)
    monkeypatch.setattr(pretrained, "built", lambda words, folder: builds.append(words))
    with pytest.raises(pretrained.Unmeasured):
        Bench(PART, tmp_path, tmp_path, is_made=False).trio(4, 0)
    first = Bench(PART, tmp_path, tmp_path).trio(4, 0)
    assert len(commands) == 2 and "init=scratch" in commands[1]
    assert len(builds) == 1  # Before the first, whose time it would be.
    assert Bench(PART, tmp_path, tmp_path, is_made=False).trio(4, 0) == first
    other = replace(PART, words=("experiment=elpv", "task.model.input_size=[96,96,3]"))
    with pytest.raises(pretrained.Unmeasured):
        Bench(other, tmp_path, tmp_path, is_made=False).trio(4, 0)


def test_a_row_has_every_seed_that_is_finished(tmp_path, monkeypatch) -> None:
    ten_images(tmp_path)

    def trained(command) -> float:
        run_dir = Path(command[-1].removeprefix("run_dir="))
        run_dir.mkdir()
        (run_dir / "summary.json").write_text('{"metrics": {"accuracy": 0.5}}')
        return 30.0

    monkeypatch.setattr(pretrained, "processor_time", trained)
    monkeypatch.setattr(pretrained, "built", lambda words, folder: tmp_path)
    for seed in range(5):
        Bench(PART, tmp_path, tmp_path).trio(4, seed)
    rows = pretrained.measured_rows([PART], tmp_path, 3)
    assert rows["classification, 4"]["cells"][3] == "5"
    assert not pretrained.measured_rows([PART], tmp_path, 6)


def test_parts_whose_data_are_not_here_are_left_out(tmp_path, capsys) -> None:
    chosen = {**pretrained.WORDS, "elpv": str(tmp_path)}
    titles = [part.title for part in pretrained.parts(chosen)]
    assert titles == ["classification", "cells", "segmentation"]
    printed = capsys.readouterr().out
    assert "without bccd=<folder" in printed and "without fashion=<folder" in printed
    chosen |= {"bccd": str(tmp_path), "fashion": str(tmp_path)}
    assert len(pretrained.parts(chosen)) == 5
    chosen["only"] = "detection"
    assert [part.title for part in pretrained.parts(chosen)] == ["detection"]
    chosen["sizes"] = "50,200"
    assert [part.sizes for part in pretrained.parts(chosen)] == [(50,)]
