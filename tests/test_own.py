"""A project of one's own, as docs/your-project.md writes it: its files are taken from the page, and lie outside the repository."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipelines import config, own
from pipelines.commands import completion
from pipelines.reproduction import levels
from pipelines.usage import UsageError
from pipelines.weights import cards

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "your-project.md"
BLOCK = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURES = 80


def lay_out(folder: Path) -> Path:
    """The files of the page below a folder."""
    for name, text in BLOCK.findall(PAGE.read_text()):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch) -> Iterator[Path]:
    """The project of the page, chosen in this process."""
    folder = lay_out(tmp_path / "parity")
    monkeypatch.setenv(own.VARIABLE, str(folder / "settings"))
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.startswith("parity_project")]:
        del sys.modules[name]


def test_the_page_writes_a_whole_project(project):
    files = {str(file.relative_to(project)) for file in project.rglob("*.*")}
    assert files == {
        "settings/dataset/parity.yaml",
        "settings/experiment/parity.yaml",
        "settings/experiment/small_resnet.yaml",
        "parity_project/experiments.py",
        "parity_project/numbered.py",
        "parity_project/parity.py",
        "parity_project/parity_reading.py",
    }


def test_own_names_are_chosen_and_listed_beside_ours_and_inherit_from_them(project):
    cfg = config.compose(["experiment=small_resnet"])
    assert (cfg.name, cfg.epochs, cfg.garden) == ("small_resnet", 2, "resnet_imagenet")
    cfg = config.compose(["experiment=parity"])
    assert cfg.dataset.source == "parity_project.numbered" and cfg.garden == "parity_resnet"
    assert config.options("experiment")["parity"].startswith("Is the digit even?")
    assert {"resnet", "parity"} <= config.options("experiment").keys()
    with pytest.raises(UsageError, match="did you mean parity"):
        config.compose(["experiment=parit"])
    assert config.modules(cfg) == [
        "parity_project.experiments",
        "parity_project.numbered",
        "parity_project.parity",
    ]


def test_a_name_of_ours_is_refused_with_the_file_that_has_it(project):
    file = project / "settings" / "dataset" / "digits.yaml"
    file.write_text("name: digits\n")
    with pytest.raises(UsageError, match=f"{file} has the name of one of ours, dataset=digits"):
        config.compose(["dataset=digits"])
    with pytest.raises(UsageError, match="rename it"):
        config.options("dataset")


def test_a_folder_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(own.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="TRELLIS_CONF: there is no folder .*nowhere"):
        config.options("experiment")


def test_new_files_of_tools_go_into_the_own_folder(project, monkeypatch):
    assert own.new_file(config.FOLDER, "runtime", "fast") == project / "settings/runtime/fast.yaml"
    text = cards.file("efficientnet_lite0").read_text()
    own.new_file(config.FOLDER, "weights", "mine").write_text(text)
    assert "mine" in cards.names() and cards.load("mine").name == "mine"
    monkeypatch.delenv(own.VARIABLE)
    assert own.new_file(config.FOLDER, "runtime", "fast").parent == config.FOLDER / "runtime"


def test_the_shell_is_offered_own_names_and_those_in_folders(project):
    offered = {}
    bash = completion.script("bash")
    for word in ("pari", "published/coco/retinanet_spinenet49_m"):
        words = f"COMP_WORDS=(trellis train experiment = {word}); COMP_CWORD=4"
        program = f'{bash}\n{words}\n_trellis\necho "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True)
        offered[word] = done.stdout.split()
    assert offered["pari"] == ["parity"]
    assert "published/coco/retinanet_spinenet49_mobile_384" in offered.popitem()[1]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("dataset.task=parity_project.other", "dataset.task: parity_project.other cannot be"),
        ("dataset.source=no_such.source", "dataset.source: no_such.source cannot be imported"),
    ],
)
def test_a_module_that_is_not_there_is_named_with_what_to_set(override, says, project):
    import tasks
    from pipelines.data import sources

    dataset = config.compose(["experiment=parity", override]).dataset
    with pytest.raises(UsageError, match=f"{says}.*PYTHONPATH"):
        tasks.load(dataset.task)
        sources.load(dataset.source)


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_what_is_ones_own_is_described_by_digest_and_commit(project):
    cfg = config.compose(["experiment=parity"])

    def described() -> dict:
        return own.describe([*config.modules(cfg), "official.vision", "json"])

    before = described()
    assert set(before) == {own.VARIABLE, "parity_project"}
    assert before["parity_project"]["commit"] is None and before["parity_project"]["dirty"]
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "parity")
    committed = described()["parity_project"]
    assert committed["commit"] and not committed["dirty"]
    assert committed["digest"] == before["parity_project"]["digest"]
    (project / "parity_project" / "new.py").write_text("x = 1\n")
    changed = described()["parity_project"]
    assert changed["dirty"] and changed["digest"] != committed["digest"]


def test_a_run_is_not_made_again_with_other_code_of_ones_own(project, monkeypatch):
    then = own.describe(["parity_project.parity"])
    own.refuse_others(then)
    file = project / "parity_project" / "parity.py"
    file.write_text(file.read_text() + "# changed\n")
    with pytest.raises(UsageError, match="parity_project is other code.*lay in .*parity"):
        own.refuse_others(then)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(project)])
    with pytest.raises(UsageError, match="parity_project is not here.*PYTHONPATH"):
        own.refuse_others(then)


def test_own_code_that_is_in_no_commit_keeps_a_run_from_level_two():
    environment = {
        "git": {"commit": "a" * 40, "dirty": False},
        "own": {"parity_project": {"dirty": True}},
    }
    texts = {"environment.json": json.dumps(environment)}
    assert "parity_project of your own is in no commit" in str(levels._unlocked(texts, ""))


@pytest.mark.slow
def test_the_project_of_the_page_trains_and_is_made_again_from_its_record(trellis, tmp_path):
    folder = lay_out(tmp_path / "parity")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    digits = load_digits()
    for number in range(PICTURES):
        pixels = (digits.images[number] * 15.9).astype(np.uint8)
        file = pictures / f"{digits.target[number]}_{number:04d}.png"
        cv2.imwrite(str(file), cv2.resize(pixels, (32, 32)))
    run_dir = tmp_path / "runs" / "first"
    places = [f"data_dir={tmp_path / 'data'}", f"runs_dir={tmp_path / 'runs'}"]
    variables = {own.VARIABLE: str(folder / "settings"), "PYTHONPATH": str(folder)}
    trellis(
        "train", "experiment=parity", f"dataset.images={pictures}", *places, f"run_dir={run_dir}",
        "task.train_data.global_batch_size=8", "task.validation_data.global_batch_size=8", "epochs=1",
        "task.train_data.decode_jpeg_only=false", "task.validation_data.decode_jpeg_only=false",
        "trainer.optimizer_config.warmup.linear.warmup_steps=1", **variables,
    )  # fmt: skip
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert manifest["task"] == "parity_project.parity" and manifest["labels"] == ["even", "odd"]
    environment = json.loads((run_dir / "environment.json").read_text())
    assert set(environment["own"]) == {own.VARIABLE, "parity_project"}
    assert environment["sources"]["parity_project"]
    # Without the folder of configuration: the record has all that was composed from it.
    again = ["reproduce", f"run={run_dir}", *places]
    assert "identical" in trellis(*again, PYTHONPATH=str(folder))
    assert "put the folder that holds it on PYTHONPATH" in trellis(*again, code=2)


def test_make_hands_on_the_variables(project):
    done = subprocess.run(
        ["make", "-s", "show", "EXP=parity", f"PYTHONPATH={project}"],
        cwd=ROOT, env=os.environ, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "garden: parity_resnet" in done.stdout
