"""Measures what pretrained weights are worth: the same steps with them and without, by size and seed.    make bench-pretrained

    make bench-pretrained ARGS="root=/bccd labels=[RBC,WBC,Platelets] sizes=50,200 seeds=5 steps=300"

`root` is a folder of Pascal VOC. For each size the first images of its training list are taken, the same for both; each seed is a
pair of runs. Printed are the mean of the differences (pretrained minus scratch) and its 95% interval, by Student's t over seeds.
Runs that are finished are not made again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

KEYS = {
    "root": "",
    "labels": "[RBC,WBC,Platelets]",
    "sizes": "50,200",
    "seeds": "5",
    "steps": "300",
    "experiment": "retinanet_lite0",
    "metric": "AP50",
    "folder": "runs/pretrained",
}
STARTS = {"pretrained": ["frozen=0.3"], "scratch": ["init=scratch"]}
LISTS = Path("ImageSets", "Main")


def main(words: Sequence[str]) -> None:
    """Makes the runs, then prints one line a size."""
    chosen = dict(KEYS)
    for word in words:
        key, _, value = word.partition("=")
        if key not in KEYS:
            sys.exit(f"{key}: there is no such word; there are: {', '.join(KEYS)}")
        chosen[key] = value
    if not Path(chosen["root"], LISTS, "train.txt").is_file():
        sys.exit(f"root={chosen['root']}: there is no {LISTS}/train.txt in it")
    for size in map(int, chosen["sizes"].split(",")):
        differences = []
        for seed in range(int(chosen["seeds"])):
            figures = [_figure(chosen, size, seed, start) for start in STARTS]
            print(f"{size} images, seed {seed}: {dict(zip(STARTS, figures, strict=True))}")
            differences.append(figures[0] - figures[1])
        print(f"{size} images: {_summary(differences)}", flush=True)


def _figure(chosen: dict[str, str], size: int, seed: int, start: str) -> float:
    """The metric of one run, made where it is not there."""
    folder = Path(chosen["folder"]).absolute()
    run_dir = folder / f"{start}-{size}-{seed}-{chosen['steps']}"
    file = run_dir / "summary.json"
    if not _is_finished(file):
        command = _command(chosen, size, seed, folder)
        command += [f"run_dir={run_dir}", *STARTS[start]]
        environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return float(json.loads(file.read_text())["metrics"][chosen["metric"]])


def _is_finished(file: Path) -> bool:
    return file.exists() and json.loads(file.read_text()).get("status") == "finished"


def _command(chosen: dict[str, str], size: int, seed: int, folder: Path) -> list[str]:
    root = Path(chosen["root"]).absolute()
    taken = folder / f"first-{size}.txt"
    names = (root / LISTS / "train.txt").read_text().split()
    folder.mkdir(parents=True, exist_ok=True)
    taken.write_text("\n".join(names[:size]) + "\n")
    validation = root / LISTS / "val.txt"
    steps = int(chosen["steps"])
    return [
        *(sys.executable, "-m", "pipelines", "train"),
        f"experiment={chosen['experiment']}",
        "dataset=voc",
        f"dataset.name=first_{size}",
        f"dataset.root={root}",
        f"dataset.labels={chosen['labels']}",
        f"dataset.lists={{train:'{taken}',validation:'{validation}'}}",
        f"seed={seed}",
        f"trainer.train_steps={steps}",
        f"trainer.validation_interval={steps}",
        f"data_dir={folder / 'data'}",
        f"runs_dir={folder}",
    ]


def _summary(differences: Sequence[float]) -> str:
    mean = float(np.mean(differences))
    if len(differences) < 2:
        return f"{mean:+.4f}, one seed: no interval"
    error = stats.sem(differences)
    low, high = stats.t.interval(0.95, len(differences) - 1, loc=mean, scale=error)
    word = "pretraining pays" if low > 0 else "not told apart"
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}] over {len(differences)} seeds: {word}"


if __name__ == "__main__":
    main(sys.argv[1:])
