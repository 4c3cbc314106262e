"""What all tests share: the command as users call it, and tiny data in the formats users bring."""

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

ROOT = Path(__file__).parent.parent
FUZZ_UNTIL = float(
    os.environ.get("FUZZ_UNTIL", "inf")
)  # set by tests/fuzzing.py, in seconds since 1970
SIZES = {"train": 24, "validation": 10}


def pytest_runtest_setup():
    if time.time() > FUZZ_UNTIL:
        pytest.skip("the time for generated input is over")


@pytest.fixture(scope="session", autouse=True)
def scratch(tmp_path_factory):
    """A temporary folder of the session's own: TensorFlow leaves a file for every function it traces."""
    os.environ["TMPDIR"] = str(tmp_path_factory.mktemp("tmp"))


@pytest.fixture(scope="session")
def common(tmp_path_factory) -> Path:
    """A folder of this session's that the processes of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def unasked():
    """What `make test ARGS=…` would hand on to every make that a test calls."""
    for name in ("ARGS", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS"):
        os.environ.pop(name, None)


def typed(command: str) -> list[str]:
    """What the Makefile makes of a command that a message names: a verb and its overrides."""
    printed = subprocess.run(
        command.replace("make ", "make --no-print-directory --dry-run --old-file=.venv/ready ", 1),
        shell=True,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return shlex.split(printed.splitlines()[-1])[1:]


def _heed_interrupts() -> None:
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Trellis:
    """The console command in a process of its own."""

    def start(
        self,
        *arguments: str,
        limits: dict[int, int] | None = None,
        cwd: Path = ROOT,
        **variables: str,
    ) -> subprocess.Popen:
        def prepare() -> None:
            _heed_interrupts()
            for kind, most in (limits or {}).items():
                resource.setrlimit(kind, (most, most))

        return subprocess.Popen(
            [sys.executable, "-m", "pipelines", *arguments],
            cwd=cwd, env={**os.environ, **variables}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=prepare,
        )  # fmt: skip

    def __call__(self, *arguments: str, code: int = 0, cwd: Path = ROOT, **variables: str) -> str:
        """Returns what it printed; fails when the exit code is another."""
        process = self.start(*arguments, cwd=cwd, **variables)
        printed, _ = process.communicate(timeout=900)
        assert process.returncode == code, printed
        return printed


@pytest.fixture(scope="session")
def trellis() -> Trellis:
    return Trellis()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """An SQLite store of MLflow without runs: made once, to be copied."""
    from pipelines.tracking import mlflow_store  # MLflow takes seconds to import.

    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow_store.create(f"sqlite:///{database}")
    return database


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> dict[str, list[str]]:
    return tiny_data(tmp_path_factory.mktemp("tiny"))


def tiny_data(folder: Path) -> dict[str, list[str]]:
    """Overrides that choose tiny data of each kind, as a user brings them: a class folder, COCO JSON, masks."""
    if not folder.exists() or not any(folder.iterdir()):
        for split in SIZES:
            _write(folder, split)
    splits = "{{train: '{0}/train{1}', validation: '{0}/validation{1}'}}".format
    data = f"data_dir={folder / 'records'}"
    return {
        "classification": [
            "dataset=image_folder",
            f"dataset.images={splits(folder / 'classes', '')}",
            data,
        ],
        "detection": [
            "dataset=coco",
            f"dataset.images={splits(folder / 'scenes', '')}",
            f"dataset.annotations={splits(folder / 'scenes', '.json')}",
            data,
        ],
        "segmentation": [
            "dataset=mask_folder",
            f"dataset.images={splits(folder / 'scenes', '')}",
            f"dataset.masks={splits(folder / 'masks', '')}",
            "dataset.labels=[background,zero,one,two,three]",
            data,
        ],
        "video_classification": [
            "dataset=video_folder",
            f"dataset.images={splits(folder / 'clips', '')}",
            data,
        ],
        "volume_segmentation": [
            "dataset=volume_folder",
            f"dataset.images={splits(folder / 'volumes', '')}",
            f"dataset.masks={splits(folder / 'voxels', '')}",
            "dataset.labels=[background,digit]",
            data,
        ],
    }


def _write(folder: Path, split: str) -> None:
    """Real digits from 0 to 3, each alone on grey: as a class folder, as clips in which it moves, in the later slices of volumes, and as 64-pixel scenes with a polygon and a mask."""
    digits = load_digits(n_class=4)
    offset = 0 if split == "train" else 400
    images, annotations = [], []
    for place in (folder / name / split for name in ("scenes", "masks", "volumes", "voxels")):
        place.mkdir(parents=True)
    for number in range(SIZES[split]):
        pixels, label = digits.images[offset + number], int(digits.target[offset + number])
        small = cv2.resize(
            (pixels * 15.9).astype(np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC
        )
        classes = folder / "classes" / split / str(label)
        classes.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(classes / f"{number}.png"), small)
        clip = folder / "clips" / split / str(label) / str(number)
        clip.mkdir(parents=True)
        for step in range(4):
            cv2.imwrite(str(clip / f"{step}.png"), np.roll(small, step * label, axis=0))
        slices = np.tile(small, (32, 1, 1)) * (np.arange(32) > number % 16)[:, None, None]
        cv2.imwrite(str(folder / "volumes" / split / f"{number}.png"), slices.reshape(-1, 32))
        digit = (slices > 100).astype(np.uint8)
        cv2.imwrite(str(folder / "voxels" / split / f"{number}.png"), digit.reshape(-1, 32))
        scene, mask = np.full((64, 64), 90, np.uint8), np.zeros((64, 64), np.uint8)
        left, top = (number * 7) % 30, (number * 5) % 30
        scene[top : top + 32, left : left + 32] = np.maximum(90, small)
        mask[top : top + 32, left : left + 32] = (small > 100) * (label + 1)
        cv2.imwrite(str(folder / "scenes" / split / f"{number}.jpg"), scene)
        cv2.imwrite(str(folder / "masks" / split / f"{number}.png"), mask)
        contours, _ = cv2.findContours(
            (mask > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        x, y, width, height = cv2.boundingRect(np.concatenate(contours))
        images.append({"id": number + 1, "file_name": f"{number}.jpg", "width": 64, "height": 64})
        annotations.append(
            {
                "id": number + 1,
                "image_id": number + 1,
                "category_id": label + 1,
                "bbox": [x, y, width, height],
                "area": int((mask > 0).sum()),
                "iscrowd": 0,
                "segmentation": [line.flatten().tolist() for line in contours if len(line) > 2],
            }
        )
    categories = [
        {"id": label + 1, "name": name}
        for label, name in enumerate(("zero", "one", "two", "three"))
    ]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "scenes" / f"{split}.json").write_text(json.dumps(document))
