"""Measures what pretrained weights are worth: the same steps and the same time without them, by size and seed.    make bench-pretrained

    make bench-pretrained ARGS="bccd=/data/BCCD_Dataset/BCCD fashion=/data/fashion"     three tasks, and their page (docs/pretrained.md)
    make bench-pretrained ARGS="experiment=retinanet_lite0 dataset=voc dataset.root=/photos sizes=50,200 seeds=5 steps=60"

For each size and seed: the weights, and INIT=scratch, for as many steps on the same images at the same rates, nothing frozen. Where
the second took clearly less processor time than the first, it is trained once more, for so many steps that it takes no less. Each
seed has other images of the training split, in the order of a hash of their names. `elpv=`, `bccd=` and `fashion=` say where these data
lie; ELPV's are fetched where nothing is said, the others are left out. `only=clothes` takes one part, `sizes=50,200` these sizes. What is
finished is not made again. Rows of the page are kept in benchmarks/pretrained.json, each with the machine that it was measured on, until
that size is measured again.
"""

import contextlib
import itertools
import json
import math
import os
import resource
import shutil
import statistics as means
import string
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.__main__ import in_words, machine
from pipelines import statistics
from pipelines.system import tfrecord
from pipelines.system.processes import ROOT

WORDS = {
    "sizes": "",
    "seeds": "3",
    "steps": "100",
    "folder": "runs/pretrained",
    "only": "",
    "elpv": "",
    "fashion": "",
    "bccd": "",
    "page": "docs/pretrained.md",
}
KEPT = Path(__file__).with_name("pretrained.json")
FOLDERS = {"clothes": "fashion", "detection": "bccd"}  # the word that says where a part's data lie
# Which digit it is takes thousands of steps to learn.
DIGITS_OR_NOT = (
    "dataset.name=digits_or_not",
    "dataset.labels=[background,digit]",
    "dataset.remap={0:0,1:1,2:1,3:1,4:1,5:1,6:1,7:1,8:1,9:1,10:1}",
)
SIDES = {"pretrained": ["frozen=0"], "scratch": ["frozen=0", "init=scratch"]}
ENVIRONMENT = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
TRELLIS = [sys.executable, "-m", "pipelines"]
ENOUGH = 0.9  # of the other's processor time: as long, since equal commands differ by as much
SPARE = 4  # A process spends at least so much of its time in its steps, or the longer run is a little longer still.


@dataclass(frozen=True)
class Part:
    """One experiment on parts of one data set.

    Attributes:
        words: overrides; those of the data set are of all of it.
        metric: of the evaluation; empty: the experiment's headline.
        shards: of the validation split that are evaluated on; a pattern.
    """

    title: str
    words: tuple[str, ...]
    sizes: tuple[int, ...]
    steps: int
    metric: str = ""
    shards: str = "*"


def suite(places: Mapping[str, str]) -> list[Part]:
    """What the page shows, as small as it can be learned: tiny pictures, few steps.

    Args:
        places: of `FOLDERS`; where nothing is said, the part cannot be run, but ELPV is fetched.
    """
    cells = (
        "experiment=elpv",
        *([f"dataset.root={places['elpv']}"] if places["elpv"] else []),
        "task.model.input_size=[96,96,3]",
        "task.train_data.global_batch_size=16",
        "task.validation_data.global_batch_size=67",
    )
    clothes = (
        "experiment=efficientnet_lite0",
        "dataset=fashion_mnist",
        f"dataset.root={places['fashion']}",
        "task.model.input_size=[64,64,3]",
        "task.train_data.global_batch_size=16",
        "task.validation_data.global_batch_size=125",
    )
    boxes = (
        "experiment=retinanet_lite0",
        "dataset=bccd",
        f"dataset.root={places['bccd']}",
        "task.model.input_size=[96,128,3]",
        "task.validation_data.global_batch_size=29",
        "trainer.optimizer_config.warmup.linear.warmup_steps=10",
    )
    pixels = (
        "experiment=deeplabv3plus_lite0",
        "dataset=digit_masks",
        *DIGITS_OR_NOT,
        "task.model.input_size=[96,96,3]",
        "task.train_data.output_size=[96,96]",
        "task.train_data.global_batch_size=4",
        "task.validation_data.output_size=[96,96]",
        "task.validation_data.global_batch_size=50",
        "trainer.optimizer_config.warmup.linear.warmup_steps=10",
    )
    return [
        Part("classification", cells, (50, 200, 1954), 80, "accuracy"),
        Part("cells", cells, (50,), 200, "accuracy"),
        Part("clothes", clothes, (50, 200, 2000), 80, "accuracy", "00000-of-*"),
        Part("detection", boxes, (50, 205), 60, "AP50"),
        Part("segmentation", pixels, (50, 200, 2000), 100, "mean_iou"),
    ]


@dataclass(frozen=True)
class Run:
    """What one training gave.

    Attributes:
        cpu_s: processor time of the whole command, its start and its evaluation too: other work does not change it much.
    """

    value: float
    cpu_s: float
    steps: int


@dataclass(frozen=True)
class Trio:
    """The weights' run, and two without them: of as many steps, and of no less time; they may be one."""

    pretrained: Run
    scratch: Run
    longer: Run


class Unmeasured(Exception):
    """A run that was not made."""


@dataclass(frozen=True)
class Bench:
    """A part, with all of its data built.

    Attributes:
        built: where these data lie.
        is_made: whether a run that is not there yet is made.
    """

    part: Part
    built: Path
    folder: Path
    is_made: bool = True

    @property
    def manifest(self) -> dict[str, Any]:
        """What was built."""
        return json.loads((self.built / "manifest.json").read_text())

    def trio(self, size: int, seed: int) -> Trio:
        """The trainings of one size and seed."""
        steps = self.part.steps
        pretrained = self._run("pretrained", size, seed, steps)
        scratch = self._run("scratch", size, seed, steps)
        longer = scratch
        if scratch.cpu_s < ENOUGH * pretrained.cpu_s:
            behind = pretrained.cpu_s / scratch.cpu_s - 1
            more = math.ceil(steps * (1 + SPARE * behind))
            longer = self._run("scratch", size, seed, more)
        return Trio(pretrained, scratch, longer)

    def _run(self, side: str, size: int, seed: int, steps: int) -> Run:
        """One training, or what it gave before."""
        name = f"{self.part.title}-{side}-{size}-{seed}-{steps}"
        run_dir = self.folder / name
        images = self._images(size, seed)
        words = [*images, f"seed={seed}", f"trainer.train_steps={steps}"]
        words += [f"trainer.validation_interval={steps}", f"trainer.checkpoint_interval={steps}"]
        words += [f"data_dir={self.folder / 'data'}", f"runs_dir={self.folder}"]
        words += SIDES[side]
        own = [word for word in self.part.words if not word.startswith("dataset")]
        command = ["finetune", *own, *words, f"run_dir={run_dir}"]
        about = {"command": command, "machine": machine()}
        file = self.folder / f"{name}.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        if before.get("about") == about:
            return Run(**before["run"])
        if not self.is_made:
            raise Unmeasured
        shutil.rmtree(run_dir, ignore_errors=True)  # Begun again, its time is a whole one.
        if side == "pretrained":  # The first is not to pay for what all of them learn from.
            built(images, self.folder)
        cpu_s = processor_time(command)
        run = Run(self._value(run_dir), round(cpu_s, 1), steps)
        kept = {"about": about, "run": asdict(run)}
        file.write_text(json.dumps(kept, indent=1))
        print(f"{name}: {run.value:.4f}, {run.cpu_s} CPU s", flush=True)
        return run

    def _value(self, run_dir: Path) -> float:
        summary = json.loads((run_dir / "summary.json").read_text())
        metric = self.part.metric or summary["headline"]["metric"]
        return float(summary["metrics"][metric])

    def _images(self, size: int, seed: int) -> list[str]:
        """Overrides that choose some of the training images, others for each seed while there are any."""
        data = self.manifest
        folder = self.folder / "images" / f"{data['dataset']}-{size}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "train-00000-of-00001.tfrecord"
        if not file.exists():
            frames = map(tfrecord.frame, self._records(seed * size, size))
            file.write_bytes(b"".join(itertools.chain.from_iterable(frames)))
        return [
            "dataset=tfrecord",
            f"dataset.task={data['task']}",
            f"dataset.name={data['dataset']}_{size}",
            f"dataset.images={{train:'{file}',validation:'{self.built}/validation-{self.part.shards}.tfrecord'}}",
            f"dataset.labels={json.dumps(data['labels'])}",
        ]

    def _records(self, start: int, count: int) -> list[bytes]:
        """So many records of the training split from one on, from the beginning again at its end."""
        everything: list[bytes] = []
        for shard in self.manifest["splits"]["train"]["shards"]:
            with (self.built / shard["file"]).open("rb") as stream:
                everything += tfrecord.read(stream)
        first = start % len(everything)
        again = itertools.cycle(everything)
        return list(itertools.islice(again, first, first + min(count, len(everything))))


def processor_time(arguments: Sequence[str]) -> float:
    """Runs a command of this tool; returns the seconds that all of its processes computed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*TRELLIS, *arguments], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(part: Part, folder: Path, seeds: int) -> dict[int, list[Trio]]:
    """Makes the runs of a part, seed by seed, so that what is there early has every size."""
    bench = Bench(part, built(part.words, folder), folder)
    trios: dict[int, list[Trio]] = {size: [] for size in part.sizes}
    for seed, size in itertools.product(range(seeds), part.sizes):
        trios[size].append(bench.trio(size, seed))
    return trios


def built(words: Sequence[str], folder: Path) -> Path:
    """Has all of the data built; returns the folder that they lie in."""
    command = [*TRELLIS, "data", *words, f"data_dir={folder / 'data'}"]
    done = subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.split()[-1])


def mean(trios: Sequence[Trio], side: str, field: str) -> float:
    """The mean of one side's figure or time."""
    return means.mean(getattr(getattr(trio, side), field) for trio in trios)


def gain(trios: Sequence[Trio], without: str) -> str:
    """Pretrained less the other side, pair by pair, with its 95% interval."""
    differences = [trio.pretrained.value - getattr(trio, without).value for trio in trios]
    shown = f"{means.mean(differences):+.3f}"
    interval = statistics.interval(differences)
    if interval is None:
        return f"{shown}, no interval"
    word = "" if interval.low > 0 else ", not told apart"
    return f"{shown} [{interval.low:+.3f}, {interval.high:+.3f}]{word}"


def line(trios: Sequence[Trio]) -> str:
    """What can be said of one size."""
    return (
        f"{mean(trios, 'pretrained', 'value'):.4f} against {mean(trios, 'scratch', 'value'):.4f} at equal steps, "
        f"{gain(trios, 'scratch')}; at no less time {gain(trios, 'longer')}; {len(trios)} pairs"
    )


COLUMNS = (
    "task, figure",
    "images",
    "steps",
    "seeds",
    "pretrained",
    "from scratch",
    "difference at equal steps",
    "difference at no less time",
    "CPU s: pretrained, scratch, longer",
    "machine",
)
Rows = dict[str, dict[str, Any]]


def row(part: Part, size: int, trios: Sequence[Trio]) -> Rows:
    """One size, as the page shows it, and where it was measured."""
    times = [f"{mean(trios, side, 'cpu_s'):.0f}" for side in ("pretrained", "scratch", "longer")]
    longer = mean(trios, "longer", "steps")
    cells = (
        f"{part.title}, {part.metric}",
        f"{size:,}",
        f"{part.steps}, longer {longer:.0f}",
        str(len(trios)),
        f"{mean(trios, 'pretrained', 'value'):.3f}",
        f"{mean(trios, 'scratch', 'value'):.3f}",
        gain(trios, "scratch"),
        gain(trios, "longer"),
        ", ".join(times),
    )
    return {f"{part.title}, {size}": {"machine": in_words(machine()), "cells": cells}}


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


HEAD = """# What pretrained weights add

Written by `make bench-pretrained ARGS="bccd=<folder of BCCD> fashion=<folder of Fashion-MNIST>"`. Each seed has other images of the training
split while there are any.

"""
TAIL = """
Each row is an experiment that starts from EfficientNet-Lite0's ImageNet weights, less the same with `INIT=scratch`: the same images, batches,
augmentation, rates, steps and seed, and all layers learn on both sides. In brackets the 95% interval of the mean difference, by Student's
t over the pairs. The command measures 50, 200 and up to 2,000 images; a size without a row has not been run here.

*Equal steps* are equal time but for reading the weights, since network and graph are the same. The time beside is the processor time
of the whole command, start and evaluation included; where scratch took less than nine tenths of the other's, it was trained once more with more
steps (*longer*), and the difference at no less time is to that run. `make finetune` freezes the backbone first: such steps
are cheaper, since no gradient goes through it, and the step is traced once more at the release.

Pictures of 64 to 128 pixels and half a minute to a minute for each training: this shows what the weights add early, not how good either side gets. Settings were
chosen by single runs on 200 pictures of another seed, which are not in the table.

| row | data | what always saying the most frequent gives |
| --- | --- | --- |
| classification | photographs of solar cells (package elpv-dataset, CC BY-NC-SA 4.0, fetched, no part of this tool), 96 pixels, 670 to evaluate on | 0.697 |
| cells | those photographs once more: 80 steps did not tell the sides apart, so 200 steps and five seeds were declared before a run of them, and run once | 0.697 |
| clothes | classification too: Fashion-MNIST, 64 pixels, the first of eight shards of its test pictures, 1,177, to evaluate on | 0.1 |
| detection | photographs of blood (BCCD), 96x128 pixels, 87 to evaluate on | |
| segmentation | the embedded scenes of digits, 96 pixels, 200 to evaluate on; digit or background | 0.43 |
"""


def page(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """The page that shows every row, and names the machines."""
    machines = sorted({row["machine"] for row in kept.values()})
    letters = dict(zip(machines, string.ascii_uppercase, strict=False))
    rows = [_row([*row["cells"], letters[row["machine"]]]) for row in kept.values()]
    table = "\n".join([_row(COLUMNS), _row(["---"] * len(COLUMNS)), *rows])
    legend = "; ".join(f"{letter}: {name}" for name, letter in letters.items())
    return f"{HEAD}{table}\n\nMachines: {legend}.\n{TAIL}"


def in_order(kept: Rows) -> Rows:
    """Rows as the suite has them."""
    names = [f"{part.title}, {size}" for part in suite(WORDS) for size in part.sizes]
    return {name: kept[name] for name in names if name in kept}


def main(words: Sequence[str]) -> None:
    """Makes the runs; prints a line for each size, and writes the page with every size that is measured."""
    chosen, others = dict(WORDS), []
    for word in words:
        key, _, value = word.partition("=")
        if key in WORDS:
            chosen[key] = value
        else:
            others.append(word)
    folder = Path(chosen["folder"]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    seeds = int(chosen["seeds"])
    if others:
        sizes = whole_numbers(chosen["sizes"] or "50,200")
        part = Part("own", tuple(others), sizes, int(chosen["steps"]))
        show(part, measured(part, folder, seeds))
        return
    for part in parts(chosen):
        show(part, measured(part, folder, seeds))
    if all(map(chosen.get, FOLDERS.values())):
        before = json.loads(KEPT.read_text())
        kept = in_order({**before, **measured_rows(suite(chosen), folder, seeds)})
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
        (ROOT / chosen["page"]).write_text(page(kept))


def measured_rows(parts: Sequence[Part], folder: Path, seeds: int) -> Rows:
    """Rows of the page: every size of which all runs are there, made now or before on this machine."""
    rows: Rows = {}
    for part in parts:
        bench = Bench(part, built(part.words, folder), folder, is_made=False)
        for size in part.sizes:
            trios = finished(bench, size)
            if len(trios) >= seeds:
                rows |= row(part, size, trios)
    return rows


def finished(bench: Bench, size: int) -> list[Trio]:
    """The trainings of the seeds that are finished, from the first on; they can be more than are asked for now."""
    trios = []
    with contextlib.suppress(Unmeasured):
        for seed in itertools.count():
            trios.append(bench.trio(size, seed))
    return trios


def parts(chosen: Mapping[str, str]) -> list[Part]:
    """The parts of the suite that are asked for and whose data are here."""
    only = chosen["only"]
    wanted = whole_numbers(chosen["sizes"])
    asked = []
    for part in suite(chosen):
        word = FOLDERS.get(part.title, "")
        sizes = tuple(size for size in part.sizes if not wanted or size in wanted)
        if word and not chosen[word]:
            print(f"without {word}=<folder, as conf/dataset has it>: no {part.title}, no page")
        elif only in ("", part.title):
            asked.append(replace(part, sizes=sizes))
    return asked


def whole_numbers(text: str) -> tuple[int, ...]:
    """Numbers between commas."""
    return tuple(map(int, text.split(","))) if text else ()


def show(
    part: Part, trios: Mapping[int, Sequence[Trio]], say: Callable[[str], None] = print
) -> None:
    """Prints a line for each size."""
    for size in part.sizes:
        say(f"{part.title}, {size} images: {line(trios[size])}")


if __name__ == "__main__":
    main(sys.argv[1:])
