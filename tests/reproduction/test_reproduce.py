"""A recorded run made again: identical from its record, whatever has become of the working tree."""

import json
import re
import shutil

import pytest

from pipelines import config
from pipelines.commands import reproduce
from pipelines.reproduction import levels
from pipelines.tracking import session
from pipelines.usage import UsageError
from tests.training.test_experiment import arguments, summary


@pytest.mark.slow
def test_a_recorded_run_comes_out_identical(trellis, tiny, tmp_path):
    common = [f"runs_dir={tmp_path}", *tiny["classification"][-1:]]
    printed = trellis("train", *arguments(tiny, tmp_path, "resnet", "first"))
    assert re.fullmatch(r"level R[12] of R4: .*; for R[23]: .*", printed.splitlines()[-1])
    printed = trellis("reproduce", f"run={tmp_path / 'first'}", *common)
    assert printed.strip().splitlines()[-2] == "identical"
    assert printed.strip().splitlines()[-1] == summary(tmp_path / "first")["level"]["line"]
    assert len(summary(tmp_path / "first")["repeats"]) == 1
    (witness,) = levels.shown(tmp_path)
    assert (witness["how"], witness["experiment"]) == ("repeat", "resnet")
    (again,) = (tmp_path / "reproductions").iterdir()
    assert summary(again)["weights_sha256"] == summary(tmp_path / "first")["weights_sha256"]
    assert json.loads((again / "reproduction.json").read_text())["verdict"] == "identical"


def test_a_run_that_trained_nothing_is_refused_with_what_to_reproduce_instead(
    empty_store, tmp_path
):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    cfg = config.compose([f"runs_dir={tmp_path}", f"run_dir={tmp_path / 'sweep'}"])
    with session.recorded(cfg) as recorder:
        trial = {
            "run_dir": tmp_path / "sweep" / "one",
            "state": "finished",
            "settings": {"seed": 1},
        }
        recorder.summary.update(trials=[trial])
    with pytest.raises(UsageError, match="is a sweep.*make reproduce RUN=.*one"):
        reproduce.run(config.compose([f"runs_dir={tmp_path}", f"run={tmp_path / 'sweep'}"]))
    with session.recorded(
        config.compose([f"runs_dir={tmp_path}", f"run_dir={tmp_path / 'empty'}"])
    ):
        pass
    with pytest.raises(UsageError, match="trained nothing"):
        reproduce.run(config.compose([f"runs_dir={tmp_path}", f"run={tmp_path / 'empty'}"]))
