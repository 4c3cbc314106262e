"""Trains the same composed configuration with official/vision/train.py and with trellis, side by side.    make bench-train

Processes in turns, on the same records and seed, each ended after its last step. The start is the time from the command to the
end of the first block of steps, the rate is taken between the second and the last: the official driver prepares its
evaluations before the first, trellis after it. Processor time beside both, of all processes of the command: it says the same
on a machine that does other work too.
"""

import argparse
import contextlib
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import results

# About 15 s of training each.
STEPS = {
    "resnet": 600,
    "mobilenet": 180,
    "vit": 160,
    "retinanet": 140,
    "fasterrcnn": 100,
    "maskrcnn": 80,
    "deeplabv3plus": 180,
    "segmentation_fpn": 140,
}
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
    start_cpu_s: float
    step_cpu_s: float


def pace(command: list[str], steps: int, variables: Mapping[str, str] | None = None) -> Pace:
    """Runs one process to its last step and reads its pace from the lines that name a step.

    Args:
        variables: of its environment, beside ours.
    """
    began = time.monotonic()
    seen: dict[int, tuple[float, float]] = {}  # Clock and processor time by step.
    tail: list[str] = []
    with subprocess.Popen(
        command,
        env={**ENVIRONMENT, **(variables or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        for line in process.stdout or ():
            tail = [*tail[-20:], line]
            step = STEP.match(line)
            if step:
                seen.setdefault(int(step[1]), (time.monotonic(), _cpu_s(process.pid)))
            if steps in seen:
                _end(process.pid)
                break
    if steps not in seen:
        raise RuntimeError(f"{' '.join(command)} failed:\n{''.join(tail)}")
    return _pace(began, [(step, *seen[step]) for step in sorted(seen)])


def _pace(began: float, seen: list[tuple[int, float, float]]) -> Pace:
    """What follows from the steps that were seen, with the clock and the processor time at each."""
    _, started, start_cpu_s = seen[0]
    second, since, since_cpu_s = seen[min(1, len(seen) - 1)]
    last, ended, end_cpu_s = seen[-1]
    count = last - second
    return Pace(
        start_s=started - began,
        rate=count / (ended - since) if count else math.nan,
        start_cpu_s=start_cpu_s,
        step_cpu_s=(end_cpu_s - since_cpu_s) / count if count else math.nan,
    )


def _family(pid: int) -> list[psutil.Process]:
    """A process, its children and theirs."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _end(pid: int) -> None:
    """Ends a process with all that it has started, so that nothing of it runs beside the next."""
    for member in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def _cpu_s(pid: int) -> float:
    """Processor time of a process, its children and theirs."""
    total = 0.0
    for member in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # It has ended since.
            times = member.cpu_times()
            total += times.user + times.system
    return total


def trellis(name: str, folder: Path, *more: str) -> list[str]:
    """The command a user types."""
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


def official(garden: str, params: Path, folder: Path, mode: str = "train_and_eval") -> list[str]:
    """The official driver on the parameters that trellis resolved, which by default does as trellis does: trains and evaluates."""
    shutil.rmtree(folder, ignore_errors=True)
    return [
        sys.executable,
        "-m",
        "official.vision.train",
        f"--experiment={garden}",
        f"--mode={mode}",
        f"--model_dir={folder}",
        f"--config_file={params}",
    ]


def measure(name: str, root: Path, repeats: int, variants: list[str]) -> dict[str, list[Pace]]:
    """Trains with both tools in turns."""
    steps = STEPS[name]
    run = root / "runs" / "trellis"
    # Builds the data where they are missing, and resolves the parameters.
    pace(trellis(name, run), BLOCK)
    params = root / "params.yaml"
    shutil.copy(run / "params.yaml", params)
    garden = _garden(run / "config.yaml")
    paces: dict[str, list[Pace]] = {"official": []}
    for _ in range(repeats):
        command = official(garden, params, root / "official")
        paces["official"].append(pace(command, steps))
        for variant in variants:
            command = trellis(name, run, *VARIANTS[variant])
            paces.setdefault(variant, []).append(pace(command, steps))
    return paces


def _garden(file: Path) -> str:
    """The name under which Model Garden has the experiment of a recorded configuration."""
    named = re.search(r"^garden: (\S+)", file.read_text(), re.MULTILINE)
    if named is None:
        raise RuntimeError(f"{file} names no experiment of Model Garden")
    return named[1]


def _median(paces: list[Pace]) -> dict[str, float]:
    values = {}
    for name in Pace.__dataclass_fields__:
        values[name] = statistics.median(getattr(single, name) for single in paces)
    return values


def show(paces: dict[str, list[Pace]]) -> None:
    """Prints medians and, in brackets, their ratios to the official driver's."""
    base = _median(paces["official"])
    for who in paces:
        middle = _median(paces[who])
        ratio = {name: middle[name] / base[name] for name in base}
        print(
            f"  {who:<26} {middle['rate']:7.2f} steps/s ({ratio['rate']:.2f})   "
            f"{middle['step_cpu_s'] * 1000:7.1f} ms of CPU a step ({ratio['step_cpu_s']:.2f})   "
            f"start {middle['start_s']:5.1f} s ({ratio['start_s']:.2f}), "
            f"{middle['start_cpu_s']:5.1f} s of CPU ({ratio['start_cpu_s']:.2f})",
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
    parser.add_argument(
        "--variants",
        nargs="+",
        default=list(VARIANTS),
        choices=list(VARIANTS),
        help="as typed, and with parts switched off",
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
            paces = measure(name, Path(folder), asked.repeats, asked.variants)
        print(name)
        show(paces)
        measured += results.of_paces(name, paces["trellis"], paces["official"])
    results.write(asked.json, measured)


if __name__ == "__main__":
    main()
