"""Finds on which parts of a processor the bits depend: operations, and first steps of recipes, under what others have.

    python -m benchmarks.processors                         the operations, two minutes
    python -m benchmarks.processors --recipes resnet vit    the first steps of recipes, half a minute for each and setting
    python -m benchmarks.processors --cost --recipes resnet --settings "as it is" "oneDNN capped at AVX2"    CPU time a step

A processor with fewer instructions is played by what TensorFlow's parts let be capped, one with other caches by overwriting what
Eigen has read of them. For each setting is printed what differs from the first one; of a recipe's losses, by how much.

Other processors are emulated by QEMU (`apt install qemu-user`), slowly, and only where they are named: --settings "oneDNN capped
at AVX2" "EPYC-Rome, emulated" lays an emulated one beside this processor with as few instructions.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import train

STEPS = 3
TIMED, BLOCK = 50, 10  # steps to time: the first block is traced, the second warms up
SMALL_CACHES = {"CACHES_PLAYED": "32768 524288 8388608"}
NO_ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "0"}
LIBRARIES = {
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX512F,-FMA,-FMA4",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512F AVX512CD AVX512_SKX",
    "JSIMD_FORCENONE": "1",
}
# What is played, by the variables that do it.
SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {},
    "oneDNN capped at AVX512_CORE": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "oneDNN capped at AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN capped at AVX": {"ONEDNN_MAX_CPU_ISA": "AVX"},
    "oneDNN capped at SSE41": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "other caches": SMALL_CACHES,
    "oneDNN off": NO_ONEDNN,
    "oneDNN off, other caches": {**NO_ONEDNN, **SMALL_CACHES},
    "fewer vectors in the C library, NumPy and libjpeg": LIBRARIES,
    "two threads to an operation": {"THREADS_PLAYED": "2"},
}
QUICK = list(SETTINGS)
EMULATOR = "qemu-x86_64"
EMULATED = ("EPYC-Rome", "EPYC-Milan", "Haswell", "Skylake-Client")
Found = Mapping[str, str]


for name in EMULATED:
    SETTINGS[f"{name}, emulated"] = {"QEMU_CPU": name}
# With oneDNN, as the runtime has it everywhere; TensorFlow itself leaves it off on processors without VNNI.
ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "1"}


def printed(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """What a process prints under these variables."""
    under = [EMULATOR] if "QEMU_CPU" in variables else []
    process = subprocess.run(
        [*under, *command],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **ONEDNN, **variables},
        text=True,
        capture_output=True,
    )
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{process.stdout}{process.stderr}")
    return process.stdout


def operations(variables: Mapping[str, str]) -> Found:
    """Digests by operation."""
    text = printed([sys.executable, "-m", "benchmarks.operations"], variables)
    pairs = [line.split("\t") for line in text.splitlines() if "\t" in line]
    return dict(pairs)


def short(recipe: str, data: str, folder: str, steps: int, block: int) -> list[str]:
    """What makes a training of a recipe end after a few steps, in a folder, with its figures block by block."""
    return [
        f"experiment={recipe}",
        f"data_dir={data}",
        f"runs_dir={folder}",
        f"run_dir={folder}/run",
        f"trainer.train_steps={steps}",
        f"trainer.validation_interval={steps}",
        f"trainer.checkpoint_interval={steps}",
        f"trainer.steps_per_loop={block}",
        f"trainer.summary_interval={block}",
    ]


def first_steps(recipe: str, data: str, variables: Mapping[str, str]) -> Found:
    """The losses of the first steps of a recipe, and the digest of its weights after them."""
    threads = variables.get("THREADS_PLAYED", "1")
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            *short(recipe, data, folder, STEPS, 1),
            "trainer.validation_steps=1",
            # The last rate of the warm-up, so that the weights move at once.
            "trainer.optimizer_config.warmup.linear.warmup_steps=1",
            f"threads.intra_op={threads}",
            "threads.inter_op=2",
            "imports=[benchmarks.caches]",
        ]
        printed([sys.executable, "-m", "pipelines", "train", *settings], variables)
        lines = Path(folder, "run", "flight.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    found = {f"loss {step['step']}": repr(step["loss"]) for step in steps[1:]}
    return {**found, "weights": steps[-1]["variables"]}


def step_cpu_ms(recipe: str, data: str, variables: Mapping[str, str]) -> float:
    """Processor time of a step of a recipe with its input, as it is typed."""
    with tempfile.TemporaryDirectory() as folder:
        settings = short(recipe, data, folder, TIMED, BLOCK)
        command = [sys.executable, "-m", "pipelines", "train", *settings]
        return 1000 * train.pace(command, TIMED, variables).step_cpu_s


def cost(recipe: str, data: str, settings: Sequence[str], turns: int) -> None:
    """Prints the processor time of a step under each setting: the least of a few runs in turns, and what it is of the first."""
    least = dict.fromkeys(settings, math.inf)
    for _ in range(turns):
        for setting in settings:
            taken = step_cpu_ms(recipe, data, SETTINGS[setting])
            least[setting] = min(least[setting], taken)
    first = least[settings[0]]
    for setting, taken in least.items():
        print(recipe, setting, f"{taken:.1f} ms", f"{taken / first:.2f}", sep="\t", flush=True)


def compare(what: str, settings: Sequence[str], run: Callable[[Mapping[str, str]], Found]) -> None:
    """Prints for each setting what differs from the first."""
    before: Found = {}
    for setting in settings:
        after = run(SETTINGS[setting])
        before = before or after
        told = [difference(name, before, after) for name in before if before[name] != after[name]]
        print(what, setting, ", ".join(told) or "equal", sep="\t", flush=True)


def difference(name: str, before: Found, after: Found) -> str:
    """The name of what differs, of a loss with the relative difference."""
    if not name.startswith("loss"):
        return name
    old = float(before[name])
    apart = abs(float(after[name]) - old) / abs(old)
    return f"{name} by {apart:.0e}"


def main() -> None:
    """Runs each setting in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="*", default=[])
    parser.add_argument("--settings", nargs="*", default=QUICK, choices=list(SETTINGS))
    parser.add_argument("--cost", action="store_true", help="time the steps of the recipes")
    parser.add_argument("--turns", type=int, default=2, help="runs of each setting that are timed")
    parser.add_argument("--data", default="data", help="where the records are or will be")
    chosen = parser.parse_args()
    if not chosen.recipes:
        compare("operations", chosen.settings, operations)
    for recipe in chosen.recipes:
        if chosen.cost:
            cost(recipe, chosen.data, chosen.settings, chosen.turns)
            continue

        def steps(variables: Mapping[str, str], recipe: str = recipe) -> Found:
            return first_steps(recipe, chosen.data, variables)

        compare(recipe, chosen.settings, steps)


if __name__ == "__main__":
    main()
