"""Measures everything against the official tools, side by side, and holds it against what was recorded last.    make bench

Prints every ratio with its spread, and where one is below all that was recorded on such a machine; it never fails for that,
since machines are noisy. `--record` keeps the ratios of this run in benchmarks/recorded/<machine>.json and draws
docs/benchmarks.svg from them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.results import Measured
from pipelines.system import arithmetic, processes

PARTS = {"data": "2000 photographs", "train": "every experiment", "waits": "short commands"}
RECORDED = Path(__file__).parent / "recorded"
PICTURE = processes.ROOT / "docs" / "benchmarks.svg"
NOISE = 0.15  # The speed of one machine moves by so much within hours.
MACHINE = ("vendor", "family", "model", "instruction_set")

Ratios = dict[str, dict[str, float]]


def machine() -> dict[str, Any]:
    """What of this machine the figures depend on."""
    processor = arithmetic.processor()
    described = {name: processor[name] for name in MACHINE}
    return {"name": arithmetic.model_name(), "cores": processes.cores(), **described}


def in_words(here: Mapping[str, Any]) -> str:
    """A machine in one line."""
    return (
        f"{here['name']} ({here['vendor']} family {here['family']} model {here['model']}, "
        f"{here['instruction_set']}), {here['cores']} cores"
    )


def measured(part: str, folder: Path, more: Sequence[str]) -> list[Measured]:
    """Runs one of the benchmarks in a process of its own, which prints as it goes."""
    file = folder / f"{part}.json"
    command = [sys.executable, "-m", f"benchmarks.{part}", f"--json={file}", *more]
    subprocess.run(command, check=True)
    return results.read(file)


def ratios(rows: Sequence[Measured]) -> Ratios:
    """The ratio of each figure, by its name."""
    return {row.name: rounded(row) for row in rows}


def rounded(row: Measured) -> dict[str, float]:
    """A ratio as it is kept."""
    stand = asdict(results.ratio(row))
    return {name: round(value, 3) for name, value in stand.items()}


def guard(now: Ratios, before: Ratios) -> list[str]:
    """What a reader should know of a run beside the recorded one; a ratio is lower where the spreads lie apart by more than `NOISE`."""
    if not before:
        return ["nothing is recorded of such a machine yet: make bench ARGS=--record"]
    lines = []
    for name, row in now.items():
        kept = before.get(name)
        if kept is None:
            lines.append(f"new: {name}: {row['middle']:.2f}")
        elif row["high"] < kept["low"] * (1 - NOISE):
            lines.append(
                f"LOWER: {name}: {row['middle']:.2f} ({row['low']:.2f} to {row['high']:.2f}), "
                f"recorded {kept['middle']:.2f} ({kept['low']:.2f} to {kept['high']:.2f})"
            )
        elif row["low"] > kept["high"] * (1 + NOISE):
            lines.append(f"higher: {name}: {row['middle']:.2f}, recorded {kept['middle']:.2f}")
    return lines or ["every ratio is within the spread of what was recorded"]


def place(here: Mapping[str, Any], folder: Path = RECORDED) -> Path:
    """The file of a kind of machine."""
    parts = [here[name] for name in MACHINE] + [here["cores"], "cores"]
    return folder / ("-".join(str(part) for part in parts).lower() + ".json")


def read(here: Mapping[str, Any], folder: Path = RECORDED) -> Ratios:
    """What was recorded last on such a machine, nothing where nothing was."""
    file = place(here, folder)
    return json.loads(file.read_text())["ratios"] if file.exists() else {}


def record(now: Ratios, here: Mapping[str, Any], folder: Path = RECORDED) -> Ratios:
    """Keeps these ratios in place of those of the same names on such a machine; returns all that are kept of it."""
    kept = {**read(here, folder), **now}
    folder.mkdir(exist_ok=True)
    text = json.dumps({"machine": here, "ratios": kept}, indent=1)
    place(here, folder).write_text(text + "\n")
    return kept


def main() -> None:
    """Runs what is asked for, and compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="keep the ratios, draw the picture")
    parser.add_argument("--draw", action="store_true", help="only draw what is recorded here")
    asked = parser.parse_args()
    here = machine()
    if asked.draw:
        draw(read(here), here)
        return
    print(in_words(here), flush=True)
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for part in asked.parts:
            more = ["--variants", "trellis"] if part == "train" else []
            rows += measured(part, Path(folder), [f"--repeats={asked.repeats}", *more])
    print(f"\n{'':<34} {'trellis':>17} {'beside it':>17}   ratio, least to most")
    print("\n".join(results.line(row) for row in rows))
    now = ratios(rows)
    print("\n".join(guard(now, read(here))))
    if asked.record:
        draw(record(now, here), here)


def draw(kept: Ratios, here: Mapping[str, Any]) -> None:
    """Draws what stands against an official tool; a wait has none."""
    from benchmarks import picture  # Matplotlib, where something is to be drawn.

    shown = {name: row for name, row in kept.items() if not name.startswith("wait, ")}
    picture.draw(shown, in_words(here), PICTURE)
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
