"""No password leaves the process: not by the run directory, not by the terminal, not by MLflow."""

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

import tasks
from pipelines import config
from pipelines.commands import ui
from pipelines.config import Config
from pipelines.data import manifest, store
from pipelines.tracking import delivery, mlflow_store
from pipelines.tracking.record import read_run_id
from pipelines.tracking.recording import Recorder
from pipelines.usage import UsageError

Session = Callable[..., Recorder]
SECRET = (
    f"pw{uuid.uuid4().hex}"  # In no source file: the recorded difference of the source is exact.
)
CLOSED = [
    pytest.param(f"http://alice:{SECRET}@127.0.0.1:9", id="login"),
    pytest.param(f"http://127.0.0.1:9/?user=alice&password={SECRET}", id="query"),
]
VERBS = (
    "sync",
    "sync run={run_dir}",
    "doctor",
    "ui",
    "evaluate run=0123",
    "compare run={run_dir} against=0123",
    "reproduce run=0123",
)

# A run whose own words, command line and variables have passwords in them, and which fails with an address in its message.
FAILS = """
import os, sys
bucket = "s3://key:" + os.environ["TF_SOME_TOKEN"] + "@bucket/digits"
import tasks
from pipelines import config
from pipelines.data import manifest, store
from pipelines.tracking import session
cfg = config.from_yaml(sys.argv[1])
with session.recorded(cfg) as report:
    report.parameters({"store": os.environ["MLFLOW_TRACKING_URI"]})
    report.tags({"store": os.environ["MLFLOW_TRACKING_URI"]})
    report.dataset("digits", "0" * 64, bucket, {"splits": {"train": bucket}})
    report.summary.update(source=bucket)
    report(1, {"train/loss": 0.5})
    raise ValueError("cannot reach " + os.environ["MLFLOW_TRACKING_URI"])
"""


def kept(folder: Path) -> list[str]:
    """Files that hold the secret."""
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]


def test_what_is_recorded_and_sent_has_no_password(
    cfg: Config, write_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"s3://key:{SECRET}@bucket/digits"

    def report(recorder: Recorder) -> None:
        recorder.parameters({"source": address})
        recorder.tags({"source": address})
        recorder.dataset("digits", "0" * 64, address, {"source": address})
        recorder.summary.update(source=address)

    monkeypatch.setenv("TF_SOME_TOKEN", SECRET)
    monkeypatch.setattr(sys, "argv", ["trellis", "train", f"source={address}"])
    write_session(report, status="FAILED", failure=f"ValueError: {address}")
    assert delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg)) == []
    assert kept(Path(cfg.runs_dir)) == []
    run = MlflowClient(mlflow_store.address(cfg)).get_run(str(read_run_id(cfg.run_dir)))
    assert run.data.params["source"] == run.data.tags["source"] == "s3://key:***@bucket/digits"


@pytest.mark.parametrize(
    "key", ["data_dir", "dataset.images", "runner.options.flink_master", "task.init_checkpoint"]
)
def test_a_setting_with_a_password_is_refused(key: str) -> None:
    choice = ["dataset=coco", "runner=flink"]
    with pytest.raises(
        UsageError, match=rf"{key}: https://me:\*\*\*@host/x has a password"
    ) as refused:
        config.compose([*choice, f"{key}=https://me:{SECRET}@host/x"])
    assert SECRET not in str(refused.value)
    with pytest.raises(UsageError, match="has a password"):
        config.compose([*choice, f"{key}='https://host/x?X-Amz-Signature={SECRET}'"])


@pytest.mark.parametrize("uri", CLOSED)
def test_the_address_of_a_server_is_shown_without_its_password(
    uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert ui.run(Config(runs_dir="runs")) == 0
    printed = capsys.readouterr().out
    assert "the runs are on a server: http://" in printed and SECRET not in printed


def test_rejects_name_addresses_without_their_passwords(
    tiny: dict[str, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cfg = config.compose(
        [*tiny["detection"][:-1], f"data_dir={tmp_path / 'records'}", "dataset.validate=none"]
    )
    for split, file in cfg.dataset.annotations.items():
        document = json.loads(Path(file).read_text())
        document["images"].append(
            {"id": 99, "file_name": f"https://me:{SECRET}@host/a.jpg", "width": 9, "height": 9}
        )
        cfg.dataset.annotations[split] = str(tmp_path / f"{split}.json")
        Path(cfg.dataset.annotations[split]).write_text(json.dumps(document))
    cfg.dataset.max_reject_fraction = 1.0
    built = store.obtain(cfg, tasks.load("detection"))
    assert "https://me:***@host/a.jpg" in Path(built.directory, manifest.REJECTS).read_text()
    assert kept(tmp_path / "records") == []
    assert SECRET not in "".join(capfd.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize("uri", CLOSED)
def test_no_place_prints_or_keeps_the_password_of_a_server(
    cfg: Config, uri: str, monkeypatch: pytest.MonkeyPatch, trellis: Callable[..., str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("TF_SOME_TOKEN", SECRET)
    command = [sys.executable, "-c", FAILS, config.to_yaml(cfg)]
    failed = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    printed = failed.stderr.partition("tracking: ")[2].splitlines()[
        0
    ]  # What follows is Python's own, of this script.
    assert "MLflow did not take everything" in printed and f"make sync RUN={cfg.run_dir}" in printed
    for verb in VERBS:
        process = trellis.start(
            *verb.format(run_dir=cfg.run_dir).split(), f"runs_dir={cfg.runs_dir}"
        )
        output, _ = process.communicate(timeout=900)
        assert output.strip() and "Traceback" not in output, verb
        printed += output
    assert "alice:***@" in printed or "password=***" in printed
    assert SECRET not in printed
    assert kept(Path(cfg.runs_dir)) == []
    assert (Path(cfg.run_dir) / "tracking" / "sender.log").read_text()


@pytest.mark.slow
def test_an_error_that_nobody_foresaw_is_shown_without_the_passwords_in_it() -> None:
    code = f"""
import runpy, sys
import tasks
from pipelines import config
from pipelines.data import manifest, store
def fails(overrides):
    raise OSError("no route to http://alice:{SECRET}@host")
config.compose = fails
sys.argv = ["trellis", "show"]
runpy.run_module("pipelines", run_name="__main__")
"""
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert failed.returncode == 1
    assert (
        failed.stderr.endswith("OSError: no route to http://alice:***@host\n")
        and SECRET not in failed.stderr
    )
