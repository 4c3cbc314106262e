"""Measures what pretrained weights are worth: the same steps with them and without, by size and seed.    make bench-pretrained

    make bench-pretrained ARGS="experiment=elpv dataset.root=/data/elpv/elpv_dataset/data sizes=50,200 seeds=5 steps=80"
    make bench-pretrained ARGS="experiment=retinanet_lite0 dataset=voc dataset.root=/bccd dataset.labels=[RBC,WBC,Platelets]"

A pair of runs for each size and seed: the same images, steps and seed, each pair with other images of the training split (in the
order of a hash of their names). Printed are the mean of the differences, pretrained minus scratch, its 95% interval by
Student's t over the pairs, and how long each side trained. `longer=2` gives scratch twice the steps. Words that are none
of these go to both sides. Runs that are finished are not made again.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from pipelines.system import tfrecord

WORDS = {
    "sizes": "50,200",
    "seeds": "5",
    "steps": "100",
    "longer": "1",
    "frozen": "0.3",
    "folder": "runs/pretrained",
}
ENVIRONMENT = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
TRELLIS = [sys.executable, "-m", "pipelines"]


@dataclass(frozen=True)
class Run:
    """What one training gave."""

    value: float
    seconds: float  # in its steps, without start and evaluations


@dataclass(frozen=True)
class Bench:
    """The two sides, and what both are given.

    Attributes:
        built: where the data set lies, all of it.
    """

    built: Path
    folder: Path
    overrides: tuple[str, ...]
    frozen: str
    steps: int
    longer: float

    @property
    def manifest(self) -> dict[str, Any]:
        """What was built."""
        return json.loads((self.built / "manifest.json").read_text())

    def pair(self, size: int, seed: int) -> tuple[Run, Run]:
        """One training with the weights and one without."""
        images = self._images(size, seed)
        long = round(self.steps * self.longer)
        sides = (
            ("pretrained", self.steps, [f"frozen={self.frozen}"]),
            ("scratch", long, ["init=scratch"]),
        )
        runs = []
        for name, steps, chosen in sides:
            run_dir = self.folder / f"{self.manifest['dataset']}-{name}-{size}-{seed}-{steps}"
            words = [*images, *chosen, f"seed={seed}", f"run_dir={run_dir}"]
            runs.append(self._run(run_dir, steps, words))
        return runs[0], runs[1]

    def _images(self, size: int, seed: int) -> list[str]:
        """Overrides that choose some of the training images, others for each seed while there are any."""
        data = self.manifest
        folder = self.folder / f"{data['dataset']}-images-{size}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "train-00000-of-00001.tfrecord"
        with file.open("wb") as stream:
            for record in self._records(seed * size, size):
                stream.writelines(tfrecord.frame(record))
        return [
            "dataset=tfrecord",
            f"dataset.task={data['task']}",
            f"dataset.name={data['dataset']}_{size}",
            f"dataset.images={{train:'{file}',validation:'{self.built}/validation-*.tfrecord'}}",
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

    def _run(self, run_dir: Path, steps: int, words: list[str]) -> Run:
        file = run_dir / "summary.json"
        if not file.exists() or json.loads(file.read_text()).get("status") != "finished":
            command = [*TRELLIS, "train", *self.overrides, *words]
            command += [f"trainer.train_steps={steps}", f"trainer.validation_interval={steps}"]
            command += [f"data_dir={self.folder / 'data'}", f"runs_dir={self.folder}"]
            subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        summary = json.loads(file.read_text())
        seconds = float(summary["seconds"]["train"])
        return Run(float(summary["headline"]["value"]), seconds)


def main(words: Sequence[str]) -> None:
    """Makes the runs, then prints one line a size."""
    chosen, others = dict(WORDS), []
    for word in words:
        key, _, value = word.partition("=")
        if key in WORDS:
            chosen[key] = value
        else:
            others.append(word)
    folder = Path(chosen["folder"]).absolute()
    # The images of a run are chosen from what is built here.
    overrides = [word for word in others if not word.startswith("dataset")]
    bench = Bench(
        _built(others, folder),
        folder,
        tuple(overrides),
        chosen["frozen"],
        int(chosen["steps"]),
        float(chosen["longer"]),
    )
    for size in map(int, chosen["sizes"].split(",")):
        pairs = []
        for seed in range(int(chosen["seeds"])):
            pairs.append(bench.pair(size, seed))
            values = [f"{run.value:.4f} in {run.seconds:.0f} s" for run in pairs[-1]]
            print(f"{size} images, seed {seed}: pretrained, scratch: {values}", flush=True)
        print(f"{size} images: {summary_line(pairs)}", flush=True)


def _built(words: Sequence[str], folder: Path) -> Path:
    """Has all of the data built; returns the folder that they lie in."""
    command = [*TRELLIS, "data", *words, f"data_dir={folder / 'data'}"]
    done = subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.split()[-1])


def summary_line(pairs: Sequence[tuple[Run, Run]]) -> str:
    """Means of both sides, and what can be said of their difference."""
    differences = [pretrained.value - scratch.value for pretrained, scratch in pairs]
    mean = statistics.mean(differences)
    sides = []
    for side in zip(*pairs, strict=True):
        value = statistics.mean(run.value for run in side)
        seconds = statistics.mean(run.seconds for run in side)
        sides.append(f"{value:.4f} in {seconds:.0f} s")
    means = f"{sides[0]} against {sides[1]}, {mean:+.4f}"
    if len(pairs) < 2:
        return f"{means}, one pair: no interval"
    error = stats.sem(differences)
    low, high = stats.t.interval(0.95, len(pairs) - 1, loc=mean, scale=error)
    word = "pretraining pays" if low > 0 else "not told apart"
    return f"{means} [{low:+.4f}, {high:+.4f}] over {len(pairs)} pairs: {word}"


if __name__ == "__main__":
    main(sys.argv[1:])
