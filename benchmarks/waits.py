"""Measures what a person waits for besides building data and training: the short commands, and a sweep.    make bench-waits

Every command as it is typed, whole processes, in turns with what it is compared with: the official driver's list of flags
for the commands that answer what there is, and TensorFlow's import for the others, which no tool on top of it is without.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.results import Measured

EXPERIMENT = "resnet"
STEPS, TRIALS = 20, 2
TRELLIS = [sys.executable, "-m", "pipelines"]
FLAGS = [sys.executable, "-m", "official.vision.train", "--helpshort"]
IMPORT = [sys.executable, "-c", "import tensorflow"]
ENVIRONMENT = {
    **os.environ,
    "TF_USE_LEGACY_KERAS": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
ANSWERS = (
    0,
    1,
)  # `--helpshort` of absl leaves with 1, as does a comparison that finds a difference.
UNFAIR = "lists names, imports no TensorFlow; the official driver lists its flags"


@dataclass(frozen=True)
class Wait:
    """What one command took, with the processes that it started and waited for."""

    wall_s: float
    cpu_s: float


def wait(command: Sequence[str]) -> Wait:
    """Runs one command to its end."""
    before = _cpu_s()
    started = time.monotonic()
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    wall = time.monotonic() - started
    if done.returncode not in ANSWERS:
        raise RuntimeError(
            f"{' '.join(command)} failed:\n{done.stdout[-500:]}{done.stderr[-1500:]}"
        )
    return Wait(wall, _cpu_s() - before)


def _cpu_s() -> float:
    """Processor time of all processes that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def trained(root: Path) -> list[str]:
    """Trains twice, so that there is something to compare; builds the data on the way. Returns the run directories."""
    folders = []
    for number in (1, 2):
        folder = str(root / "runs" / f"run{number}")
        wait([*TRELLIS, "train", *_short(root), f"run_dir={folder}"])
        folders.append(folder)
    return folders


def _short(root: Path) -> list[str]:
    return [
        f"experiment={EXPERIMENT}",
        f"trainer.train_steps={STEPS}",
        f"data_dir={root / 'data'}",
        f"runs_dir={root / 'runs'}",
    ]


def commands(root: Path, runs: Sequence[str]) -> dict[str, list[str]]:
    """What is typed, by verb."""
    first, second = runs
    two = [f"run={first}", f"against={second}", f"runs_dir={root / 'runs'}"]
    typed = {
        "trellis": [],
        "list": ["list"],
        "show": ["show", f"experiment={EXPERIMENT}"],
        "compare": ["compare", *two],
        "bisect": ["bisect", *two],
        "check": ["check", f"experiment={EXPERIMENT}", f"data_dir={root / 'data'}"],
    }
    return {name: [*TRELLIS, *words] for name, words in typed.items()}


def measure(root: Path, repeats: int) -> list[Measured]:
    """Runs the short commands, TensorFlow's import and the official driver's help in turns."""
    typed = commands(root, trained(root))
    every = {"import tensorflow": IMPORT, "official --helpshort": FLAGS, **typed}
    waits: dict[str, list[Wait]] = {name: [] for name in every}
    for _ in range(repeats):
        for name, command in every.items():
            waits[name].append(wait(command))
    for name, each in waits.items():
        print(f"  {name:<22} {_spread(each)}", flush=True)
    measured = []
    for name in typed:
        asks = name in ("trellis", "list")
        peer = "official --helpshort" if asks else "import tensorflow"
        ours = [each.wall_s for each in waits[name]]
        theirs = [each.wall_s for each in waits[peer]]
        note = UNFAIR if asks else "against the import of TensorFlow alone"
        measured.append(Measured(f"wait, {name}", "s", ours, theirs, note=note))
    return measured


def _spread(waits: Sequence[Wait]) -> str:
    walls = [each.wall_s for each in waits]
    cpu = statistics.median(each.cpu_s for each in waits)
    middle = statistics.median(walls)
    return f"{middle:6.2f} s ({min(walls):.2f} to {max(walls):.2f})   {cpu:6.2f} CPU s"


def sweep(root: Path) -> None:
    """Sweeps over two seeds, a few steps each; prints where the time of a trial goes."""
    folder = root / "runs" / "sweep"
    seeds = ",".join(map(str, range(1, TRIALS + 1)))
    whole = wait([*TRELLIS, "sweep", *_short(root), f"seed={seeds}", f"run_dir={folder}"])
    summaries = [json.loads(file.read_text()) for file in sorted(folder.glob("*/summary.json"))]
    trials = [_seconds(file) for file in sorted(folder.glob("*/tracking/journal.jsonl"))]
    recorded = json.loads((folder / "summary.json").read_text())["trials"]
    lived = [trial["seconds"] for trial in recorded]
    parts: list[dict[str, float]] = []
    for summary, session, life in zip(summaries, trials, lived, strict=True):
        parts.append(_parts(summary["seconds"], session, life))
    print(
        f"a sweep of {TRIALS} trials of {STEPS} steps: {whole.wall_s:.1f} s, {whole.cpu_s:.1f} CPU s"
    )
    for name in parts[0]:
        middle = statistics.median(part[name] for part in parts)
        print(f"  {name:<58} {middle:6.2f} s")
    own = whole.wall_s - sum(lived)
    print(
        f"  {'once: the sweep itself, its own start and its ranking':<58} {own:6.2f} s", flush=True
    )


def _seconds(journal: Path) -> float:
    """From the beginning to the end of a run's record."""
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    times = {event["event"]: event["time"] for event in events}
    return (times["close"] - times["open"]) / 1000


def _parts(laps: dict[str, Any], session: float, life: float) -> dict[str, float]:
    """The seconds of one trial, by what they are spent on; the last but one line is their sum without the training."""
    work = laps["train"] + laps["evaluate"]
    edges = life - session - laps["data"] - laps["setup"]
    return {
        "process: Python, our imports, composition; MLflow, exit": edges,
        "data: found and held against their manifest": laps["data"],
        "TensorFlow's import, parameters, devices": laps["setup"],
        "model, input, the record": session - work,
        "overhead: all of that": life - work,
        "training and evaluation, tracing included": work,
    }


def main() -> None:
    """Prints a table of waits, and one of a sweep's trial."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write what was measured to a file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-waits-") as folder:
        print(f"the command as typed; medians of {asked.repeats} runs in turns, least and most")
        measured = measure(Path(folder), asked.repeats)
        sweep(Path(folder))
    for row in measured:
        print(results.line(row))
    results.write(asked.json, measured)


if __name__ == "__main__":
    main()
