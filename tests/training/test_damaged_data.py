"""A record that a disk has spoilt stops the training; the commands that it names repair the data and resume."""

import re
from pathlib import Path

import pytest
from etils import epath

from pipelines.data import checks, manifest
from pipelines.system import tfrecord
from tests.conftest import typed

SHORT = [
    "trainer.train_steps=6",
    "trainer.validation_interval=6",
    "task.train_data.global_batch_size=4",
    "task.validation_data.global_batch_size=2",
]


def spoil(data_dir: Path, split: str) -> tuple[Path, bytes]:
    """Turns a bit in every record's image, and notes the stamps as they are then: a rotten disk changes no time."""
    (file,) = data_dir.glob("image_folder-*/manifest.json")
    built = manifest.load(str(file.parent))
    shard = file.parent / built.splits[split].shards[0].file
    content, at = bytearray(shard.read_bytes()), 0
    with shard.open("rb") as records:
        for length in tfrecord.lengths(records):
            content[at + 12 + length // 2] ^= 1
            at += length + 16
    whole = shard.read_bytes()
    shard.write_bytes(content)
    known = checks.read(epath.Path(built.directory))
    known.stamps = manifest.stamps(built)
    checks.write(epath.Path(built.directory), known)
    return shard, whole


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_commands_named_repair_the_data_and_resume_the_run(trellis, tiny, tmp_path, split):
    given = [*tiny["classification"][:-1], f"data_dir={tmp_path}/data", "dataset.validate=none"]
    trellis("data", *given)
    shard, whole = spoil(tmp_path / "data", split)
    places = [f"run_dir={tmp_path}/run", f"runs_dir={tmp_path}/runs"]
    printed = trellis("train", "experiment=resnet", *given, *SHORT, *places, code=2)
    repair, resume = re.search(
        r"to find and repair it: (make data .*); then to resume: (make train .*)", printed
    ).groups()
    assert "Traceback" not in printed
    assert f"{shard.name} is missing or damaged; writing it again" in trellis(*typed(repair))
    assert shard.read_bytes() == whole
    assert "after 6 steps" in trellis(*typed(resume), f"runs_dir={tmp_path}/runs")
