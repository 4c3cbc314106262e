"""Planted causes: each is named by compare, bisect and reproduce, and nothing else is blamed."""

import contextlib
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import official
import pytest

from pipelines.commands import bisect, compare
from tests.conftest import ROOT
from tests.training.test_experiment import arguments

OTHER_NUMPY = "2.3.4"
NOT_PROMISED = "; bits are not promised"
# By cause: what names it, by heading, as regular expressions; a heading that is not here must say "the same".
EXPECTED: dict[str, dict[str, list[str]]] = {
    "instruction set": {"class": [r"instruction set \w+ -> SSE41 \(ONEDNN_MAX_CPU_ISA\)"]},
    "oneDNN": {"class": [r"oneDNN on -> off \(TF_ENABLE_ONEDNN_OPTS\)"]},
    "threads": {
        "class": [r"threads.intra_op 1 -> 2"],
        "config": [r"threads.intra_op: 1 -> 2"],
    },
    "another NumPy": {
        "class": [r"NumPy [\d.]+ -> 2.3.4", r"NumPy's compiled libraries \w+ -> \w+"],
        "environment": [r"numpy: [\d.]+ -> 2.3.4"],
    },
    "augmentation": {"config": [r"task.train_data.aug_rand_hflip: False -> True"]},
    "seed": {"config": [r"seed: 0 -> 1"]},
    "swapped image": {
        "data": [r"fingerprint: \w+ -> \w+", r"train.train-\d+-of-\d+.tfrecord: \w+ -> \w+"],
    },
    "source line": {
        "code": [
            r"uncommitted changes differ \(diff.patch\): .*pipelines/training/exact/determinism.py.*"
        ],
    },
    "Model Garden's default": {
        "config": [r"Model Garden's default task.losses.l2_weight_decay: 0.0001 -> 0.0002"],
        "code": [r"sources of Model Garden: \w+ -> \w+"],
    },
}
# Where bisect sees the runs part. NumPy does not compute what is trained.
PARTING = {
    "augmentation": "step 1, first in the inputs after augmentation",
    "seed": "step 0, first in the initial weights",
    "swapped image": "first in the records",
    "source line": "step 0, first in the initial weights",
    "Model Garden's default": "step 1, first in the arithmetic",
}
REPRODUCED = ("instruction set", "oneDNN", "another NumPy", "Model Garden's default")


class Runs:
    """A run left alone, and runs that differ from it in one thing."""

    def __init__(self, trellis, tiny, folder: Path) -> None:
        self.trellis, self.tiny, self.folder = trellis, tiny, folder
        self.base = folder / "base"
        self.common = [f"runs_dir={folder}", *tiny["classification"][-1:]]
        trellis("train", *self.settings("base"))

    def settings(self, name: str, *more: str) -> list[str]:
        return arguments(
            self.tiny,
            self.folder,
            "resnet",
            name,
            "threads.intra_op=1",
            "threads.inter_op=1",
            "figure.margin=1.0",  # So wide that a training of four steps counts as one of the recipe.
            *more,
        )

    def trained(self, name: str, *more: str, **variables: str) -> Path:
        self.trellis("train", *self.settings(name, *more), **variables)
        return self.folder / name

    def reproduced(self, *codes: int, seeds: int = 1, **variables: str) -> tuple[Path, str]:
        """The run made again under other variables, and what that printed."""
        reproductions = self.folder / "reproductions"
        before = set(reproductions.glob("*"))
        settings = [f"run={self.base}", f"seeds={seeds}", *self.common]
        process = self.trellis.start("reproduce", *settings, **variables)
        printed, _ = process.communicate(timeout=900)
        assert process.returncode in codes, printed
        new = set(reproductions.glob("*")) - before
        others = set(reproductions.glob("*-seed_*")) & new
        assert len(others) == seeds - 1
        (made,) = new - others
        return made, printed

    def told(self, verb: ModuleType, other: Path) -> list[str]:
        """What a verb says of the run left alone and another."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = verb.main([f"run={self.base}", f"against={other}", *self.common])
        assert code in (0, 1)
        return printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def runs(trellis, tiny, tmp_path_factory) -> Runs:
    return Runs(trellis, tiny, tmp_path_factory.mktemp("planted"))


def headings(lines: list[str]) -> dict[str, list[str]]:
    """What stands under each heading that does not say "the same"."""
    said: dict[str, list[str]] = {}
    heading = ""
    for line in lines:
        if line.startswith("  "):
            said[heading].append(line.strip())
            continue
        heading, colon, rest = line.partition(": ")
        if not colon:
            heading = line.rstrip(":")
        said[heading] = [] if rest in ("", "the same") else [rest]
    return {
        name: said[name]
        for name in ("class", "config", "data", "code", "environment")
        if said.get(name)
    }


def check(cause: str, lines: list[str]) -> None:
    """Each expected line is there, and no other."""
    found = headings(lines)
    print(
        cause,
        found,
        [line for line in lines if "part at step" in line or "losses agree" in line],
        lines[-1],
    )
    assert set(found) == set(EXPECTED[cause]), lines
    for heading, patterns in EXPECTED[cause].items():
        texts = [text.removesuffix(NOT_PROMISED) for text in found[heading]]
        for pattern in patterns:
            assert any(re.fullmatch(pattern, text) for text in texts), (pattern, texts)
        expected = re.compile("|".join(patterns))
        strangers = [text for text in texts if not expected.fullmatch(text)]
        assert cause == "another NumPy" or strangers == []


def swapped(runs: Runs) -> Path:
    """Trained on the same folder of images, one of which holds another's pixels."""
    images = runs.tiny["classification"][1]
    folder = Path(re.search(r"train: '(.*)/train'", images)[1])
    other = runs.folder / "classes"
    shutil.copytree(folder, other)
    first, second = sorted((other / "train" / "0").iterdir())[:2]
    shutil.copy(second, first)
    return runs.trained("swapped", images.replace(str(folder), str(other)))


def another_line(runs: Runs) -> Path:
    """Trained by a clone of this tree in which one line of one file is another."""
    clone = runs.folder / "clone"
    command = ["git", "clone", "--quiet", "--shared", str(ROOT), str(clone)]
    subprocess.run(command, check=True)
    file = clone / "pipelines" / "training" / "exact" / "determinism.py"
    text = file.read_text()
    line = "tf_keras.utils.set_random_seed(seed)"
    assert line in text
    file.write_text(text.replace(line, "tf_keras.utils.set_random_seed(seed + 1)"))
    command = [sys.executable, "-m", "pipelines", "train", *runs.settings("line")]
    subprocess.run(command, cwd=clone, check=True, capture_output=True)
    return runs.folder / "line"


def another_garden(folder: Path) -> Path:
    """A folder with Model Garden, one default of which is another."""
    installed = Path(official.__path__[0])
    shutil.copytree(
        installed,
        folder / "official",
        copy_function=lambda source, copy: Path(copy).symlink_to(source),
    )
    file = folder / "official" / "vision" / "configs" / "image_classification.py"
    text = file.read_text()
    default = "losses=Losses(l2_weight_decay=1e-4)"
    assert default in text
    file.unlink()
    file.write_text(text.replace(default, "losses=Losses(l2_weight_decay=2e-4)", 1))
    return folder


def another_numpy(folder: Path) -> Path:
    """A folder with another NumPy."""
    uv = Path(sys.executable).with_name("uv")
    command = [
        str(uv),
        "pip",
        "install",
        "--quiet",
        "--python",
        sys.executable,
        "--no-deps",
        "--target",
        str(folder),
        f"numpy=={OTHER_NUMPY}",
    ]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        pytest.skip(f"another NumPy cannot be installed here: {process.stderr.strip()[-300:]}")
    return folder


# Each makes a run that differs in one thing; returns it, and what `reproduce` printed where that made it.
PLANTED: dict[str, Callable[[Runs], tuple[Path, str]]] = {
    "instruction set": lambda runs: runs.reproduced(0, seeds=2, ONEDNN_MAX_CPU_ISA="SSE41"),
    "oneDNN": lambda runs: runs.reproduced(0, TF_ENABLE_ONEDNN_OPTS="0"),
    "threads": lambda runs: (runs.trained("threads", "threads.intra_op=2"), ""),
    "another NumPy": lambda runs: runs.reproduced(
        0, 1, PYTHONPATH=str(another_numpy(runs.folder / "numpy"))
    ),
    "augmentation": lambda runs: (
        runs.trained("augmented", "task.train_data.aug_rand_hflip=true"),
        "",
    ),
    "seed": lambda runs: (runs.trained("seed", "seed=1"), ""),
    "swapped image": lambda runs: (swapped(runs), ""),
    "source line": lambda runs: (another_line(runs), ""),
    "Model Garden's default": lambda runs: runs.reproduced(
        1, PYTHONPATH=str(another_garden(runs.folder / "garden"))
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("cause", PLANTED)
def test_a_planted_cause_is_named_and_nothing_else_is_blamed(cause: str, runs: Runs) -> None:
    other, printed = PLANTED[cause](runs)
    compared = runs.told(compare, other)
    check(cause, compared)
    bisected = runs.told(bisect, other)
    check(cause, bisected)
    parting = next((line for line in bisected if "part at step" in line), "")
    if cause in PARTING:
        assert PARTING[cause] in parting
    if "class" in EXPECTED[cause] and parting:
        assert "first in the arithmetic (class: " in parting
    if printed:
        verdict = printed.splitlines()
        start = max(number for number, line in enumerate(verdict) if line.startswith("class: "))
        check(cause, verdict[start:])
        if cause == "instruction set":  # Other seeds of that class decide with the first.
            assert "weighed as 2 other seeds against the recipe's figure" in printed
        else:
            assert compared[-1] in verdict
