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

STEPS = {"resnet": 1500, "retinanet": 160, "deeplabv3plus": 300}
BLOCK = 20
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
    began, seen, tail = time.monotonic(), {}, []
    with subprocess.Popen(
        command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        for line in process.stdout:  # type: ignore[union-attr]
            tail = [*tail[-20:], line]
            if found := re.match(
                r"(?:train \| step:\s+|step )([1-9]\d*)\b.*(?:loss|steps/sec)", line
            ):
                seen.setdefault(int(found[1]), time.monotonic())
    if process.returncode or steps not in seen:
        raise RuntimeError(f"{' '.join(command)} failed:\n{''.join(tail)}")
    first = min(seen)
    return Pace(seen[first] - began, (steps - first) / (seen[steps] - seen[first]))


def trellis(name: str, folder: Path, *more: str) -> list[str]:
    """The command a user types; one evaluation, at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    steps = STEPS[name]
    return [
        sys.executable, "-m", "pipelines", "train", f"experiment={name}", f"runs_dir={folder.parent}", f"run_dir={folder}",
        f"trainer.train_steps={steps}", f"trainer.validation_interval={steps}", f"trainer.steps_per_loop={BLOCK}",
        f"trainer.checkpoint_interval={steps}", *more,
    ]  # fmt: skip


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


def main() -> None:
    """Prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--experiments", nargs="+", default=list(STEPS), choices=list(STEPS))
    asked = parser.parse_args()
    print(
        f"{os.cpu_count()} cores; medians of {asked.repeats} runs in turns; ratios to the official driver"
    )
    for name in asked.experiments:
        with tempfile.TemporaryDirectory(prefix="bench-train-") as place:
            root, steps = Path(place), STEPS[name]
            run = root / "runs" / "trellis"
            pace(
                trellis(name, run), steps
            )  # Builds the data where they are missing; resolves the parameters.
            params = root / "params.yaml"
            shutil.copy(run / "params.yaml", params)
            garden = re.search(r"^garden: (\S+)", (run / "config.yaml").read_text(), re.M)[1]  # type: ignore[index]
            paces: dict[str, list[Pace]] = {
                "official": [],
                "trellis": [],
                "trellis, determinism=off": [],
                "trellis, flight=off": [],
            }
            for _ in range(asked.repeats):
                paces["official"].append(pace(official(garden, params, root / "official"), steps))
                paces["trellis"].append(pace(trellis(name, run), steps))
                paces["trellis, determinism=off"].append(
                    pace(trellis(name, run, "determinism=off"), steps)
                )
                paces["trellis, flight=off"].append(pace(trellis(name, run, "flight=off"), steps))
        print(name)
        base = Pace(
            *(
                statistics.median(getattr(one, field) for one in paces["official"])
                for field in ("start_s", "rate")
            )
        )
        for who, each in paces.items():
            start, rate = (
                statistics.median(getattr(one, field) for one in each)
                for field in ("start_s", "rate")
            )
            print(
                f"  {who:<26} {rate:7.2f} steps/s ({rate / base.rate:.2f})   start {start:6.1f} s ({start / base.start_s:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
