"""Builds the same records with the official create_coco_tf_record and with trellis, side by side.    make bench-data

Whole processes, imports included, run in turns on the same files. Reading back (`dataset.validate`) is switched off:
the official tool has nothing like it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import HEIGHT, OBJECTS, WIDTH

BYTES = 4260  # of the annotation file, an image


@dataclass(frozen=True)
class Cost:
    """What one whole process took."""

    wall_s: float
    cpu_s: float
    peak_mb: float  # of the largest process


def written(folder: Path, images: int, *more: str) -> tuple[Path, Path]:
    """The corpus, made by another process: Linux counts the memory of whoever starts a process as that process's, and this one stays small."""
    subprocess.run(
        [sys.executable, "-m", "benchmarks.corpus", str(folder), f"--images={images}", *more],
        check=True,
    )
    return folder / "images", folder / "annotations.json"


def run(arguments: list[str], log: Path) -> Cost:
    """Runs one process to its end."""
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            arguments,
            stdout=output,
            stderr=output,
            env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "-1"},
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
    if status:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{log.read_text()[-2000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def official(images: Path, annotations: Path, target: Path, *, masks: bool) -> Cost:
    """The official tool, two processes."""
    shutil.rmtree(target, ignore_errors=True)
    arguments = [
        f"--image_dir={images}",
        f"--object_annotations_file={annotations}",
        f"--output_file_prefix={target}/train",
        "--num_shards=8",
        "--num_processes=2",
    ]
    return run(
        [
            sys.executable,
            "-m",
            "official.vision.data.create_coco_tf_record",
            *arguments,
            f"--include_masks={masks}",
        ],
        target.with_suffix(".log"),
    )


def trellis(images: Path, annotations: Path, target: Path, *, masks: bool) -> Cost:
    """The command a user types, on nothing built yet; not even digests are remembered."""
    shutil.rmtree(target, ignore_errors=True)
    places = [
        f"dataset.images={{train:'{images}'}}",
        f"dataset.annotations={{train:'{annotations}'}}",
        f"data_dir={target}",
    ]
    options = [
        "dataset=coco",
        "dataset.validate=none",
        f"dataset.include_masks={masks}",
        "dataset.shards={train:8}",
    ]
    return run(
        [sys.executable, "-m", "pipelines", "data", *options, *places], target.with_suffix(".log")
    )


def differences(theirs: Path, ours: Path, *, masks: bool) -> dict[str, int]:
    """Decodes both with the official decoder and compares every field of every image."""
    arguments = [
        sys.executable,
        "-m",
        "benchmarks.compare",
        str(theirs),
        str(ours),
        str(int(masks)),
    ]
    environment = {
        **os.environ,
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    return json.loads(
        subprocess.run(
            arguments, check=True, capture_output=True, text=True, env=environment
        ).stdout.splitlines()[-1]
    )


def show(name: str, costs: list[Cost]) -> Cost:
    """Prints the medians of several runs."""
    middle = Cost(
        *(
            statistics.median(getattr(cost, field) for cost in costs)
            for field in Cost.__dataclass_fields__
        )
    )
    print(
        f"  {name:<10} {middle.wall_s:7.1f} s   {middle.cpu_s:7.1f} CPU s   {middle.peak_mb:6.0f} MB largest process",
        flush=True,
    )
    return middle


def main() -> None:
    """Prints a table of costs and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--tenfold", action="store_true", help="also ten times the images, trellis only"
    )
    parser.add_argument(
        "--annotations",
        type=float,
        help="instead: boxes from an annotation file of so many GB, trellis only",
    )
    asked = parser.parse_args()
    if asked.annotations:
        with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
            number = round(asked.annotations * 1e9 / BYTES)
            images, annotations = written(Path(folder, "corpus"), number, "--plain")
            print(
                f"{number} images, {number * OBJECTS} annotations in a file of {annotations.stat().st_size / 1e9:.2f} GB"
            )
            show("trellis", [trellis(images, annotations, Path(folder, "trellis"), masks=False)])
        return
    with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
        root = Path(folder)
        images, annotations = written(root / "corpus", asked.images)
        print(
            f"{asked.images} photographs of {WIDTH}x{HEIGHT}, {OBJECTS} polygons each; {os.cpu_count()} cores; medians of {asked.repeats} runs in turns"
        )
        middles = {}
        for masks in (False, True):
            print("boxes and masks" if masks else "boxes only")
            costs: dict[str, list[Cost]] = {"official": [], "trellis": []}
            for _ in range(asked.repeats):
                costs["official"].append(
                    official(images, annotations, root / "official", masks=masks)
                )
                costs["trellis"].append(trellis(images, annotations, root / "trellis", masks=masks))
            theirs, ours = show("official", costs["official"]), show("trellis", costs["trellis"])
            middles[masks] = ours
            print(
                f"  ratio      {theirs.wall_s / ours.wall_s:7.2f}     {theirs.cpu_s / ours.cpu_s:7.2f}         {ours.peak_mb / theirs.peak_mb:6.2f}"
            )
            print(
                f"  decoded    {json.dumps(differences(root / 'official', root / 'trellis', masks=masks))}",
                flush=True,
            )
        if asked.tenfold:
            shutil.rmtree(root / "corpus")
            images, annotations = written(root / "corpus", 10 * asked.images)
            for masks in (False, True):
                print(f"ten times the images, {'boxes and masks' if masks else 'boxes only'}")
                large = show(
                    "trellis", [trellis(images, annotations, root / "trellis", masks=masks)]
                )
                print(
                    f"  ratio      {large.wall_s / middles[masks].wall_s:7.2f}     {large.cpu_s / middles[masks].cpu_s:7.2f}         {large.peak_mb / middles[masks].peak_mb:6.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
