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

BYTES = 4260  # an image's share of the annotation file
KINDS = {False: "boxes only", True: "boxes and masks"}  # by whether masks are written
ENVIRONMENT = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "-1"}


@dataclass(frozen=True)
class Cost:
    """What one whole process took."""

    wall_s: float
    cpu_s: float
    peak_mb: float  # the largest process


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
            env=ENVIRONMENT,
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
    if status:
        end = log.read_text()[-2000:]
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{end}")
    return Cost(
        wall_s=wall,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_mb=used.ru_maxrss / 1024,
    )


def official(images: Path, annotations: Path, target: Path, *, masks: bool) -> Cost:
    """The official tool, two processes."""
    shutil.rmtree(target, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "official.vision.data.create_coco_tf_record",
        f"--image_dir={images}",
        f"--object_annotations_file={annotations}",
        f"--output_file_prefix={target}/train",
        "--num_shards=8",
        "--num_processes=2",
        f"--include_masks={masks}",
    ]
    return run(command, target.with_suffix(".log"))


def trellis(images: Path, annotations: Path, target: Path, *, masks: bool) -> Cost:
    """The command a user types, on nothing built yet; not even digests are remembered."""
    shutil.rmtree(target, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "data",
        "dataset=coco",
        "dataset.validate=none",
        f"dataset.include_masks={masks}",
        "dataset.shards={train:8}",
        f"dataset.images={{train:'{images}'}}",
        f"dataset.annotations={{train:'{annotations}'}}",
        f"data_dir={target}",
    ]
    return run(command, target.with_suffix(".log"))


def differences(theirs: Path, ours: Path, *, masks: bool) -> dict[str, int]:
    """Decodes both with the official decoder and compares every field of every image."""
    compared = subprocess.run(
        [sys.executable, "-m", "benchmarks.compare", str(theirs), str(ours), str(int(masks))],
        check=True,
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return json.loads(compared.stdout.splitlines()[-1])


def show(name: str, costs: list[Cost]) -> Cost:
    """Prints the medians of several runs."""
    middle = Cost(
        wall_s=statistics.median(cost.wall_s for cost in costs),
        cpu_s=statistics.median(cost.cpu_s for cost in costs),
        peak_mb=statistics.median(cost.peak_mb for cost in costs),
    )
    print(
        f"  {name:<10} {middle.wall_s:7.1f} s   {middle.cpu_s:7.1f} CPU s   "
        f"{middle.peak_mb:6.0f} MB largest process",
        flush=True,
    )
    return middle


def _show_ratio(cost: Cost, base: Cost, peak: float) -> None:
    wall = cost.wall_s / base.wall_s
    cpu = cost.cpu_s / base.cpu_s
    print(f"  ratio      {wall:7.2f}     {cpu:7.2f}         {peak:6.2f}", flush=True)


def compare(root: Path, images: int, repeats: int) -> dict[bool, Cost]:
    """Builds boxes only, then boxes and masks, with both tools in turns; returns what trellis took."""
    sources = written(root / "corpus", images)
    print(
        f"{images} photographs of {WIDTH}x{HEIGHT}, {OBJECTS} polygons each; "
        f"{os.cpu_count()} cores; medians of {repeats} runs in turns"
    )
    middles = {}
    for masks in (False, True):
        print(KINDS[masks])
        theirs: list[Cost] = []
        ours: list[Cost] = []
        for _ in range(repeats):
            theirs.append(official(*sources, root / "official", masks=masks))
            ours.append(trellis(*sources, root / "trellis", masks=masks))
        base = show("official", theirs)
        middles[masks] = show("trellis", ours)
        peak = middles[masks].peak_mb / base.peak_mb
        _show_ratio(base, middles[masks], peak)
        compared = differences(root / "official", root / "trellis", masks=masks)
        print(f"  decoded    {json.dumps(compared)}", flush=True)
    return middles


def enlarge(root: Path, images: int, middles: dict[bool, Cost]) -> None:
    """Builds ten times the images with trellis, for what that costs beside `middles`."""
    shutil.rmtree(root / "corpus")
    sources = written(root / "corpus", 10 * images)
    for masks in (False, True):
        print(f"ten times the images, {KINDS[masks]}")
        cost = trellis(*sources, root / "trellis", masks=masks)
        show("trellis", [cost])
        peak = cost.peak_mb / middles[masks].peak_mb
        _show_ratio(cost, middles[masks], peak)


def annotate(root: Path, gigabytes: float) -> None:
    """Builds boxes from an annotation file of that size with trellis."""
    images = round(gigabytes * 1e9 / BYTES)
    sources = written(root / "corpus", images, "--plain")
    size = sources[1].stat().st_size / 1e9
    print(f"{images} images, {images * OBJECTS} annotations in a file of {size:.2f} GB")
    show("trellis", [trellis(*sources, root / "trellis", masks=False)])


def main() -> None:
    """Prints a table of costs and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--tenfold",
        action="store_true",
        help="also ten times the images, trellis only",
    )
    parser.add_argument(
        "--annotations",
        type=float,
        help="instead: boxes from an annotation file of so many GB, trellis only",
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
        root = Path(folder)
        if asked.annotations:
            annotate(root, asked.annotations)
            return
        middles = compare(root, asked.images, asked.repeats)
        if asked.tenfold:
            enlarge(root, asked.images, middles)


if __name__ == "__main__":
    main()
