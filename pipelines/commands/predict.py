"""Shows pictures to a recorded run's model.    make predict RUN=<run> ARGS="images=<file, folder, pattern or bucket>"

Writes what it found as drawn pictures, a contact sheet, and COCO JSON (boxes, masks), CSV (classes) or label PNGs.
Needs neither data set nor annotation. model=<exported file> asks an exported file in place of the checkpoint; without RUN=
the file alone, wherever it has come from.
"""

import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from pipelines import assembly, config
from pipelines.config import Config
from pipelines.data import pictures
from pipelines.data.example import Rejected
from pipelines.data.pictures import Found
from pipelines.outside import printable
from pipelines.shipping import metadata
from pipelines.training import process
from pipelines.usage import ExitCode, UsageError

BATCH = 8
ON_SHEET = 24
EVERY_S = 5.0  # between two lines of progress


def run(cfg: Config) -> int:
    """Writes into `predictions/<name of the place>` of the run directory, or beside a file asked alone; 1 where a picture was none."""
    if not cfg.images:
        raise UsageError(
            "images: name a file, a folder, a pattern or a bucket: "
            'make predict RUN=<run> ARGS="images=<folder>"'
        )
    listed = pictures.found(cfg.images)
    exported = _exported(cfg)
    if exported and not cfg.run:
        return _ask_alone(cfg, exported, listed)
    record, configuration = assembly.recorded_of_pictures(cfg)
    folder = _cleared(record.run_dir or Path(config.absolute(configuration.run_dir)), cfg.images)
    with process.prepared(configuration, folder):
        trained = assembly.trained(cfg)
        predictor = assembly.predictor(trained, exported)
        print(f"{len(listed)} files, {exported or trained.model.checkpoint}")
        about = {
            "labels": trained.data.labels,
            "task": trained.data.task,
            "first_label": trained.task.FIRST_LABEL,
        }
        keeper = _Keeper(folder, about, cfg.min_score, len(listed))
        return _shown(listed, configuration, predictor, keeper)


def _exported(cfg: Config) -> Path | None:
    """The file that `model` names, which has to be one of `make export`."""
    if not cfg.model:
        return None
    exported = Path(config.absolute(cfg.model))
    if not exported.exists():
        raise UsageError(
            f"model: there is no {exported}; write it: make export RUN=<run> FORMAT=tflite"
        )
    # A model lies in a folder of its format, beside a sample.
    for inside in (exported.name, f"{exported.name}.tflite", f"{exported.name}.onnx"):
        if (exported / inside).exists():
            exported /= inside
            break
    metadata.read(exported)
    return exported


def _ask_alone(cfg: Config, exported: Path, listed: list[Found]) -> int:
    """Asks an exported file that may have come without its run; what is found goes beside it."""
    about = metadata.read(exported)
    folder = _cleared(exported.parent, str(cfg.images))
    with process.prepared(cfg, folder):
        from pipelines.shipping.alone import Alone  # TensorFlow: 10 s.

        print(f"{len(listed)} files, {exported}")
        keeper = _Keeper(folder, about, cfg.min_score, len(listed))
        return _shown(listed, cfg, Alone(exported, about), keeper)


def _cleared(owner: Path, place: str) -> Path:
    """The folder that is written into, empty.

    Raises:
        UsageError: the pictures lie in it.
    """
    folder = owner / "predictions" / _name(place)
    if folder.exists() and Path(config.absolute(place)) == folder:
        raise UsageError(f"images: {place}: what is found would be written there; copy it first")
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _shown(listed: list[Found], configuration: Config, predictor: Any, keeper: "_Keeper") -> int:
    for chunk in pictures.chunks(listed, BATCH):
        readable = list(_readable(chunk, configuration, keeper))
        contents = [image.content for _, image in readable]
        for (file, _), outcome in zip(readable, predictor.found(contents), strict=True):
            keeper.take(file.name, outcome)
        keeper.progress()
    return keeper.close()


def _name(place: str) -> str:
    """The last part of a place, fit to be a folder's name."""
    last = place.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.-]+", "_", last).strip("._") or "pictures"


def _readable(
    chunk: list[Found], configuration: Config, keeper: "_Keeper"
) -> Iterator[tuple[Found, Any]]:
    dataset = configuration.dataset
    for file in chunk:
        try:
            yield file, pictures.read(file, dataset.convert if dataset else None)
        except Rejected as rejected:
            keeper.skip(file.name, str(rejected.args[-1]))


class _Keeper:
    """Writes what is found as it comes, and counts."""

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        min_score: float,
        total: int,
    ) -> None:
        from pipelines.shipping import findings  # Its packages belong to the work.

        self._folder = folder
        self._labels = about["labels"]
        self._min_score = min_score
        self._kept: Any = None
        if about["task"] == "classification":
            self._kept = findings.Probabilities(folder, self._labels)
        elif about["task"] == "detection":
            self._kept = findings.Objects(folder, self._labels, about["first_label"])
        self._sheet: list[Any] = []
        self._total = total
        self._done = 0
        self._skipped = 0
        self._started = self._told = time.monotonic()
        for name in ("drawn", "labels") if self._kept is None else ("drawn",):
            (folder / name).mkdir()

    def skip(self, name: str, reason: str) -> None:
        """Names a file that is no picture."""
        self._skipped += 1
        print(
            f"skipped {printable(name, 200)}: {printable(reason, 300)}",
            file=sys.stderr,
        )

    def take(self, name: str, outcome: Any) -> None:
        """Writes what was found in one picture, or why it could not be shown to the model."""
        from pipelines.data import preview  # NumPy and Pillow, which are there by now.
        from pipelines.shipping import findings  # Likewise.

        if isinstance(outcome, str):
            self.skip(name, outcome)
            return
        self._done += 1
        image, result = outcome
        if result.pixels is not None:
            file = self._folder / "labels" / f"{findings.safe_name(name)}.png"
            findings.write_classes(result.pixels, preview.colour, file)
        elif result.probabilities is not None:
            self._kept.add(name, result)
        else:
            self._kept.add(name, result, image.shape[:2])
        picture = self._picture(name, image, result.above(self._min_score))
        drawn = self._folder / "drawn" / f"{findings.safe_name(name)}.png"
        preview.drawn(picture, self._labels).save(drawn)
        if self._done * ON_SHEET > len(self._sheet) * self._total:
            self._sheet.append(picture)  # Pictures from all over the place.

    def _picture(self, name: str, image: Any, result: Any) -> Any:
        from pipelines.data.preview import Picture  # Likewise.

        caption = name
        if result.probabilities is not None:
            surest = int(result.probabilities.argmax())
            caption = f"{self._labels[surest]} {result.probabilities[surest]:.2f}  {name}"
        return Picture(
            image,
            caption,
            result.boxes,
            result.classes.tolist(),
            () if result.masks is None else result.masks,
            result.pixels,
        )

    def progress(self) -> None:
        """Says how far it is, at what rate and how long it will take, now and then."""
        now = time.monotonic()
        seen = self._done + self._skipped
        if now - self._told < EVERY_S or seen == self._total:
            return
        self._told = now
        rate = seen / (now - self._started)
        left = (self._total - seen) / rate
        print(
            f"{seen}/{self._total}  {rate:.1f} pictures/s  ETA {left:.0f} s",
            flush=True,
        )

    def close(self) -> int:
        """Writes the rest and says where all of it is."""
        from pipelines.data import preview  # Likewise.

        seconds = time.monotonic() - self._started
        if self._kept is not None and self._done:
            print(self._kept.close())
        if self._sheet:
            sheet = epath.Path(self._folder / "sheet.png")
            preview.sheet(self._sheet, self._labels, sheet)
            print(sheet)
        rate = self._done / seconds
        print(f"{self._done} pictures ({rate:.1f}/s), {self._skipped} skipped: {self._folder}")
        return ExitCode.FAILED if self._skipped or not self._done else ExitCode.DONE


main = config.composed(run)
