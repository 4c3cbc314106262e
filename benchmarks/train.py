"""Trains the same composed configuration with official/vision/train.py and with trellis, side by side.    make bench-train

Whole processes in turns, on the same records and seed. The rate is taken between the first and the last block of steps that a process
reports, without evaluations; the start is the time from the command to the end of the first block.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import results

STEPS = {"resnet": 1500, "retinanet": 160, "deeplabv3plus": 300}
BLOCK = 20
STEP = re.compile(r"(?:train \| step:\s+|step )([1-9]\d*)\b.*(?:loss|steps/sec)")
VARIANTS: dict[str, list[str]] = {
    "trellis": [],
    "trellis, determinism=off": ["determinism=off"],
    "trellis, flight=off": ["flight=off"],
}
ENVIRONMENT = {
    **os.environ,
    "TF_USE_LEGACY_KERAS": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@dataclass(frozen=True)
class Pace:
    """How one process trained."""

    start_s: float  # from the command to the end of the first block
    rate: float  # steps per second


def pace(command: list[str], steps: int) -> Pace:
    """Runs one process to its end and reads its pace from the lines that name a step."""
    began = time.monotonic()
    seen: dict[int, float] = {}
    tail: list[str] = []
    with subprocess.Popen(
        command,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        for line in process.stdout or ():
            tail = [*tail[-20:], line]
            step = STEP.match(line)
            if step:
                seen.setdefault(int(step[1]), time.monotonic())
    if process.returncode or steps not in seen:
        raise RuntimeError(f"{' '.join(command)} failed:\n{''.join(tail)}")
    first = min(seen)
    seconds = seen[steps] - seen[first]
    rate = (steps - first) / seconds
    return Pace(seen[first] - began, rate)


def trellis(name: str, folder: Path, *more: str) -> list[str]:
    """The command a user types; one evaluation, at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    steps = STEPS[name]
    return [
        sys.executable,
        "-m",
        "pipelines",
        "train",
        f"experiment={name}",
        f"runs_dir={folder.parent}",
        f"run_dir={folder}",
        f"trainer.train_steps={steps}",
        f"trainer.validation_interval={steps}",
        f"trainer.steps_per_loop={BLOCK}",
        f"trainer.checkpoint_interval={steps}",
        *more,
    ]


def official(garden: str, params: Path, folder: Path) -> list[str]:
    """The official driver on the parameters that trellis resolved."""
    shutil.rmtree(folder, ignore_errors=True)
    return [
        sys.executable,
        "-m",
        "official.vision.train",
        f"--experiment={garden}",
        "--mode=train",
        f"--model_dir={folder}",
        f"--config_file={params}",
    ]


def measure(name: str, root: Path, repeats: int) -> dict[str, list[Pace]]:
    """Trains with both tools in turns."""
    steps = STEPS[name]
    run = root / "runs" / "trellis"
    # Builds the data where they are missing, and resolves the parameters.
    pace(trellis(name, run), steps)
    params = root / "params.yaml"
    shutil.copy(run / "params.yaml", params)
    garden = _garden(run / "config.yaml")
    paces: dict[str, list[Pace]] = {"official": []}
    for _ in range(repeats):
        command = official(garden, params, root / "official")
        paces["official"].append(pace(command, steps))
        for variant, options in VARIANTS.items():
            command = trellis(name, run, *options)
            paces.setdefault(variant, []).append(pace(command, steps))
    return paces


def _garden(file: Path) -> str:
    """The name under which Model Garden has the experiment of a recorded configuration."""
    named = re.search(r"^garden: (\S+)", file.read_text(), re.MULTILINE)
    if named is None:
        raise RuntimeError(f"{file} names no experiment of Model Garden")
    return named[1]


def _median(paces: list[Pace]) -> Pace:
    start = statistics.median(single.start_s for single in paces)
    rate = statistics.median(single.rate for single in paces)
    return Pace(start, rate)


def show(paces: dict[str, list[Pace]]) -> None:
    """Prints medians and ratios."""
    base = _median(paces["official"])
    for who in paces:
        middle = _median(paces[who])
        rate = middle.rate / base.rate
        start = middle.start_s / base.start_s
        print(
            f"  {who:<26} {middle.rate:7.2f} steps/s ({rate:.2f})   "
            f"start {middle.start_s:6.1f} s ({start:.2f})",
            flush=True,
        )


def main() -> None:
    """Measures each experiment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--experiments",
        nargs="+",
        default=list(STEPS),
        choices=list(STEPS),
    )
    parser.add_argument("--json", type=Path, help="also write what was measured to a file")
    asked = parser.parse_args()
    print(
        f"{os.cpu_count()} cores; medians of {asked.repeats} runs in turns; "
        "ratios to the official driver"
    )
    measured = []
    for name in asked.experiments:
        with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
            paces = measure(name, Path(folder), asked.repeats)
        print(name)
        show(paces)
        measured += results.of_paces(name, paces["trellis"], paces["official"])
    results.write(asked.json, measured)


if __name__ == "__main__":
    main()
