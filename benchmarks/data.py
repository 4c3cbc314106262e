"""Builds the same records with the official create_coco_tf_record and with trellis, side by side.    make bench-data

Whole processes, imports included, run in turns on the same files. trellis runs as a user types it, its default check included;
what is switched off in a row is named there. Beside them stands what no tool can do without: every file read and hashed once,
and written once (`sha256sum` and `cp`).
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

from benchmarks import HEIGHT, OBJECTS, WIDTH, results

BYTES = 4260  # an image's share of the annotation file
KINDS = {False: "boxes only", True: "boxes and masks"}  # by whether masks are written
# Ratios of wall time and of CPU time that were measured last, by whether masks are written; the second wall time beside other work.
RECORDED = {False: (2.78, 2.69), True: (7.24, 6.12)}
CHANGED = 0.01  # of the photographs, before the last build
NAME = 34  # characters of a row's name
DASK_PORT = 18786
DASK_START_S = 10.0
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


def trellis(
    images: Path,
    annotations: Path,
    target: Path,
    *more: str,
    masks: bool,
    anew: bool = True,
) -> Cost:
    """The command a user types.

    Args:
        more: further settings.
        anew: on nothing built yet; not even digests are remembered.
    """
    if anew:
        shutil.rmtree(target, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "data",
        "dataset=coco",
        f"dataset.include_masks={masks}",
        f"dataset.images={{train:'{images}'}}",
        f"dataset.annotations={{train:'{annotations}'}}",
        f"data_dir={target}",
        *more,
    ]
    return run(command, target.with_suffix(".log"))


def least(images: Path, target: Path) -> Cost:
    """What no tool can do without: reading and hashing each file once, and writing it once."""
    shutil.rmtree(target, ignore_errors=True)
    hashing = f"find {images} -type f -print0 | xargs -0 sha256sum > {target}.sums"
    copying = f"cp -r {images} {target}"
    return run(["sh", "-c", f"{hashing} && {copying}"], target.with_suffix(".log"))


def change(images: Path, share: float) -> int:
    """Makes other files of some of the photographs; returns of how many."""
    files = sorted(images.iterdir())
    changed = files[:: round(1 / share)]
    for file in changed:
        file.write_bytes(file.read_bytes() + b"\0")  # Behind the end, where no decoder looks.
    return len(changed)


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
        f"  {name:<{NAME}} {middle.wall_s:7.1f} s   {middle.cpu_s:7.1f} CPU s   "
        f"{middle.peak_mb:6.0f} MB largest process",
        flush=True,
    )
    return middle


def _show_ratio(cost: Cost, base: Cost) -> None:
    wall = base.wall_s / cost.wall_s
    cpu = base.cpu_s / cost.cpu_s
    peak = cost.peak_mb / base.peak_mb
    print(
        f"  {'ratio':<{NAME}} {wall:7.2f} x   {cpu:7.2f} x       {peak:6.2f} of the memory",
        flush=True,
    )


def compare(root: Path, images: int, repeats: int) -> list[results.Measured]:
    """Builds boxes only, then boxes and masks, with both tools in turns; returns what each run took."""
    sources = written(root / "corpus", images)
    print(
        f"{images} photographs of {WIDTH}x{HEIGHT}, {OBJECTS} polygons each; "
        f"{os.cpu_count()} cores; medians of {repeats} runs in turns; "
        "ratio: how many times as fast as the official tool"
    )
    measured = []
    for masks in (False, True):
        print(KINDS[masks])
        theirs: list[Cost] = []
        ours: list[Cost] = []
        for _ in range(repeats):
            theirs.append(official(*sources, root / "official", masks=masks))
            ours.append(trellis(*sources, root / "trellis", masks=masks))
        base = show("official", theirs)
        middle = show("trellis", ours)
        _show_ratio(middle, base)
        print("  recorded   {:.2f} x in wall time, {:.2f} x in CPU time".format(*RECORDED[masks]))
        measured += results.of_costs(f"records, {KINDS[masks]}", ours, theirs)
        compared = differences(root / "official", root / "trellis", masks=masks)
        print(f"  decoded    {json.dumps(compared)}", flush=True)
        shutil.rmtree(root / "official")
    unchecked = trellis(*sources, root / "trellis", "dataset.validate=none", masks=False)
    show("boxes only, check switched off", [unchecked])
    return measured


def alone(root: Path, images: int) -> dict[bool, Cost]:
    """Builds so many images with trellis alone, beside the least that can be done, then again with nothing and a little changed."""
    sources = written(root / "corpus", images)
    print(f"{images} photographs, trellis alone, 1 run each")
    costs = {}
    for masks in (True, False):
        costs[masks] = trellis(*sources, root / "trellis", masks=masks)
        show(KINDS[masks], [costs[masks]])
    show("sha256sum and cp", [least(sources[0], root / "copied")])
    shutil.rmtree(root / "copied")
    again = trellis(*sources, root / "trellis", masks=False, anew=False)
    show("boxes only, nothing changed", [again])
    changed = change(sources[0], CHANGED)
    again = trellis(*sources, root / "trellis", masks=False, anew=False)
    show(f"boxes only, {changed} photographs changed", [again])
    return costs


def enlarge(root: Path, images: int) -> None:
    """Builds ten times the images, for what that costs beside a tenth of them."""
    few = alone(root, images)
    shutil.rmtree(root)
    root.mkdir()
    many = alone(root, 10 * images)
    for masks in (False, True):
        wall = many[masks].wall_s / few[masks].wall_s
        cpu = many[masks].cpu_s / few[masks].cpu_s
        peak = many[masks].peak_mb / few[masks].peak_mb
        print(
            f"ten times the images, {KINDS[masks]}: {wall:.1f} times the time, "
            f"{cpu:.1f} times the CPU, {peak:.2f} times the memory"
        )


def distribute(root: Path, images: int) -> None:
    """Builds with Dask, a scheduler and two worker processes that run already, and with the local runner."""
    sources = written(root / "corpus", images)
    address = f"tcp://127.0.0.1:{DASK_PORT}"
    beside = ["--no-dashboard"]
    scheduler = ["distributed.cli.dask_scheduler", f"--port={DASK_PORT}", *beside]
    worker = ["distributed.cli.dask_worker", address, "--nthreads=1", "--no-nanny", *beside]
    processes = []
    for module in (scheduler, worker, worker):
        command = [sys.executable, "-m", *module]
        started = subprocess.Popen(
            command, env=ENVIRONMENT, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        processes.append(started)
    time.sleep(DASK_START_S)
    print(f"{images} photographs, boxes only, 1 run each (Dask: wall time, its CPU is elsewhere)")
    options = ["runner=dask", f"runner.options.dask_client_address={address}"]
    try:
        dask = trellis(*sources, root / "trellis", *options, masks=False)
    finally:
        for process in processes:
            process.kill()  # A worker that is only asked to go waits for its scheduler.
            process.wait()
    local = trellis(*sources, root / "trellis", masks=False)
    show("dask", [dask])
    show("local", [local])
    print(f"  dask is {local.wall_s / dask.wall_s:.2f} times as fast as the local runner")


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
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--alone",
        action="store_true",
        help="instead: trellis alone, beside sha256sum and cp, and again with little changed",
    )
    instead.add_argument(
        "--tenfold",
        action="store_true",
        help="instead: trellis alone, and the same with ten times the images",
    )
    instead.add_argument(
        "--dask",
        action="store_true",
        help="instead: Dask with two worker processes beside the local runner",
    )
    instead.add_argument(
        "--annotations",
        type=float,
        help="instead: boxes from an annotation file of so many GB, trellis alone",
    )
    parser.add_argument("--json", type=Path, help="also write the comparison to a file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
        root = Path(folder) / "data"
        root.mkdir()
        if asked.annotations:
            annotate(root, asked.annotations)
        elif asked.alone:
            alone(root, asked.images)
        elif asked.tenfold:
            enlarge(root, asked.images)
        elif asked.dask:
            distribute(root, asked.images)
        else:
            measured = compare(root, asked.images, asked.repeats)
            results.write(asked.json, measured)


if __name__ == "__main__":
    main()
