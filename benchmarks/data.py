"""Builds the same records with the official create_coco_tf_record and with trellis, side by side.    make bench-data

Whole processes, imports included, run in turns on the same files. Reading back (`dataset.validate`) is switched off:
the official tool has nothing like it.
"""

import argparse
import io
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

WIDTH, HEIGHT, OBJECTS, CATEGORIES = 640, 480, 7, 80
BYTES = 4260  # of the annotation file, an image
OVERHANGING = 50  # every so many objects one leaves the image by a pixel: the official tool drops it


@dataclass(frozen=True)
class Cost:
    """What one whole process took."""

    wall_s: float
    cpu_s: float
    peak_mb: float  # of the largest process


def corpus(folder: Path, images: int, *, plain: bool = False) -> tuple[Path, Path]:
    """Photographs of 640x480 with seven polygons each, in COCO's layout; the same bytes every time. Plain ones are small and grey."""
    random = np.random.RandomState(0)
    (folder / "images").mkdir(parents=True)
    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    pictures = [_encoded(np.full((HEIGHT, WIDTH, 3), 128))] if plain else [_photograph(random, photographs) for _ in range(min(images, 500))]
    with (folder / "annotations.json").open("w") as file:  # As a stream: the document may be larger than the memory.
        file.write('{"categories": ' + json.dumps([{"id": number, "name": f"thing {number}"} for number in range(1, CATEGORIES + 1)]) + ', "images": [')
        for number in range(1, images + 1):
            name = f"{number:012d}.jpg"
            # A comment makes every file's bytes its own.
            comment = f"{number:08d}".encode()
            picture = pictures[number % len(pictures)]
            (folder / "images" / name).write_bytes(picture[:2] + b"\xff\xfe\x00\x0a" + comment + picture[2:])
            file.write((number > 1) * ", " + json.dumps({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}))
        file.write('], "annotations": [')
        for place in range(images * OBJECTS):
            thing = _thing(random, overhanging=(place + 1) % OVERHANGING == 0)
            file.write((place > 0) * ", " + json.dumps({"id": place + 1, "image_id": place // OBJECTS + 1, **thing}))
        file.write("]}")
    return folder / "images", folder / "annotations.json"


def _photograph(random: np.random.RandomState, photographs: list[Image.Image]) -> bytes:
    source = photographs[random.randint(len(photographs))]
    left, top = random.randint(source.width // 2), random.randint(source.height // 2)
    crop = source.crop((left, top, left + source.width // 2, top + source.height // 2)).resize((WIDTH, HEIGHT))
    return _encoded(np.asarray(crop, np.int16) + random.randint(-12, 13, (HEIGHT, WIDTH, 3)))


def _encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _thing(random: np.random.RandomState, *, overhanging: bool) -> dict:
    radius = float(np.clip(random.lognormal(3.5, 0.7), 6, 200))
    x, y = random.uniform(radius + 1, WIDTH - radius - 1), random.uniform(radius + 1, HEIGHT - radius - 1)
    angles = np.arange(random.randint(12, 48)) * 1.0
    angles *= 2 * math.pi / len(angles)
    reach = radius * random.uniform(0.6, 1.0, len(angles))
    points = np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1).round(2)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    box = [float(left), float(top), float(WIDTH - left + 1) if overhanging else float(round(right - left, 2)), float(round(bottom - top, 2))]
    area = float(round(math.pi * radius * radius * 0.6, 2))
    return {"category_id": int(random.randint(1, CATEGORIES + 1)), "bbox": box, "area": area, "iscrowd": 0, "segmentation": [points.ravel().tolist()]}


def written(folder: Path, images: int, *more: str) -> tuple[Path, Path]:
    """The corpus, made by another process: Linux counts the memory of whoever starts a process as that process's."""
    subprocess.run([sys.executable, "-m", "benchmarks.data", f"--images={images}", f"--corpus={folder}", *more], check=True)
    return folder / "images", folder / "annotations.json"


def run(arguments: list[str], log: Path) -> Cost:
    """Runs one process to its end."""
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(arguments, stdout=output, stderr=output, env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "-1"})
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
    if status:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{log.read_text()[-2000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def official(images: Path, annotations: Path, target: Path, *, masks: bool) -> Cost:
    """The official tool, two processes."""
    shutil.rmtree(target, ignore_errors=True)
    arguments = [f"--image_dir={images}", f"--object_annotations_file={annotations}", f"--output_file_prefix={target}/train", "--num_shards=8", "--num_processes=2"]
    return run([sys.executable, "-m", "official.vision.data.create_coco_tf_record", *arguments, f"--include_masks={masks}"], target.with_suffix(".log"))


def trellis(images: Path, annotations: Path, target: Path, *, masks: bool) -> Cost:
    """The command a user types, on nothing built yet; not even digests are remembered."""
    shutil.rmtree(target, ignore_errors=True)
    places = [f"dataset.images={{train:'{images}'}}", f"dataset.annotations={{train:'{annotations}'}}", f"data_dir={target}"]
    options = ["dataset=coco", "dataset.validate=none", f"dataset.include_masks={masks}", "dataset.shards={train:8}"]
    return run([sys.executable, "-m", "pipelines", "data", *options, *places], target.with_suffix(".log"))


def differences(theirs: Path, ours: Path, *, masks: bool) -> dict[str, int]:
    """Decodes both with the official decoder and compares every field of every image."""
    arguments = [sys.executable, "-m", "benchmarks.compare", str(theirs), str(ours), str(int(masks))]
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment).stdout.splitlines()[-1])


def show(name: str, costs: list[Cost]) -> Cost:
    """Prints the medians of several runs."""
    middle = Cost(*(statistics.median(getattr(cost, field) for cost in costs) for field in Cost.__dataclass_fields__))
    print(f"  {name:<10} {middle.wall_s:7.1f} s   {middle.cpu_s:7.1f} CPU s   {middle.peak_mb:6.0f} MB largest process", flush=True)
    return middle


def main() -> None:
    """Prints a table of costs and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tenfold", action="store_true", help="also ten times the images, trellis only")
    parser.add_argument("--annotations", type=float, help="instead: boxes from an annotation file of so many GB, trellis only")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help="only write the photographs into this folder")
    asked = parser.parse_args()
    if asked.corpus:
        corpus(Path(asked.corpus), asked.images, plain=asked.plain)
        return
    if asked.annotations:
        with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
            number = round(asked.annotations * 1e9 / BYTES)
            images, annotations = written(Path(folder, "corpus"), number, "--plain")
            print(f"{number} images, {number * OBJECTS} annotations in a file of {annotations.stat().st_size / 1e9:.2f} GB")
            show("trellis", [trellis(images, annotations, Path(folder, "trellis"), masks=False)])
        return
    with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
        root = Path(folder)
        images, annotations = written(root / "corpus", asked.images)
        print(f"{asked.images} photographs of {WIDTH}x{HEIGHT}, {OBJECTS} polygons each; {os.cpu_count()} cores; medians of {asked.repeats} runs in turns")
        middles = {}
        for masks in (False, True):
            print("boxes and masks" if masks else "boxes only")
            costs: dict[str, list[Cost]] = {"official": [], "trellis": []}
            for _ in range(asked.repeats):
                costs["official"].append(official(images, annotations, root / "official", masks=masks))
                costs["trellis"].append(trellis(images, annotations, root / "trellis", masks=masks))
            theirs, ours = show("official", costs["official"]), show("trellis", costs["trellis"])
            middles[masks] = ours
            print(f"  ratio      {theirs.wall_s / ours.wall_s:7.2f}     {theirs.cpu_s / ours.cpu_s:7.2f}         {ours.peak_mb / theirs.peak_mb:6.2f}")
            print(f"  decoded    {json.dumps(differences(root / 'official', root / 'trellis', masks=masks))}", flush=True)
        if asked.tenfold:
            shutil.rmtree(root / "corpus")
            images, annotations = written(root / "corpus", 10 * asked.images)
            for masks in (False, True):
                print(f"ten times the images, {'boxes and masks' if masks else 'boxes only'}")
                large = show("trellis", [trellis(images, annotations, root / "trellis", masks=masks)])
                print(f"  ratio      {large.wall_s / middles[masks].wall_s:7.2f}     {large.cpu_s / middles[masks].cpu_s:7.2f}         {large.peak_mb / middles[masks].peak_mb:6.2f}", flush=True)


if __name__ == "__main__":
    main()
