"""From the journal into MLflow, and nothing twice."""

import json
import math
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipelines.config import Config
from pipelines.tracking import delivery, journal, mlflow_store, record
from pipelines.tracking.record import read_run_id
from pipelines.tracking.recording import Recorder

Session = Callable[..., Recorder]
FINGERPRINT = "0123456789abcdef" * 4


def stored(cfg: Config) -> tuple[MlflowClient, Run]:
    """The one run that the store holds."""
    client = MlflowClient(mlflow_store.address(cfg))
    found = client.search_runs([item.experiment_id for item in client.search_experiments()])
    assert len(found) == 1
    return client, found[0]


def steps(client: MlflowClient, run: Run, name: str) -> list[int]:
    return [item.step for item in client.get_metric_history(run.info.run_id, name)]


def test_everything_reported_is_in_mlflow(cfg: Config, write_session: Session) -> None:
    def report(recorder: Recorder) -> None:
        recorder(10, {"train/loss": 0.5})
        recorder(20, {"train/loss": 0.25, "validation/AP/großes_A": 0.1})
        recorder.parameters({"seed": 3, "batch_size": 16})
        recorder.tags({"determinism_class": "cpu-2"})
        recorder.dataset("digits", FINGERPRINT, str(cfg.data_dir), {"train": {"examples": 7}})
        recorder.file("params.yaml", "task: {}\n")
        recorder.environment(devices=["CPU:0"])

    write_session(report)
    assert delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg)) == []
    client, run = stored(cfg)
    assert client.get_experiment(run.info.experiment_id).name == "tiny"
    assert (run.info.run_name, run.info.status) == ("one", "FINISHED")
    assert steps(client, run, "train/loss") == [10, 20]
    assert run.data.metrics["validation/AP/großes_A"] == 0.1
    assert run.data.params == {"seed": "3", "batch_size": "16"}
    expected = {
        "determinism_class": "cpu-2",
        "fingerprint": FINGERPRINT,
        "status": "finished",
        "run_dir": cfg.run_dir,
    }
    assert expected.items() <= run.data.tags.items()
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {*record.TEXTS} - {"manifest.json", "flight.jsonl"} <= names
    environment = json.loads(
        Path(client.download_artifacts(run.info.run_id, "environment.json")).read_text()
    )
    assert environment["devices"] == ["CPU:0"] and environment["packages"]


def test_the_data_are_a_dataset_input(cfg: Config, write_session: Session) -> None:
    write_session(
        lambda recorder: recorder.dataset(
            "digits", FINGERPRINT, "/data/digits", {"train": {"examples": 7}}
        )
    )
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    _, run = stored(cfg)
    [entry] = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("digits", FINGERPRINT[:36])
    assert json.loads(entry.dataset.profile) == {
        "fingerprint": FINGERPRINT,
        "train": {"examples": 7},
    }
    assert json.loads(entry.dataset.source) == {"uri": "/data/digits"}
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]


def test_a_resumed_run_is_one_run_without_doubles(cfg: Config, write_session: Session) -> None:
    def report(start: int) -> Callable[[Recorder], None]:
        def steps_of_a_session(recorder: Recorder) -> None:
            recorder.parameters({"seed": 3})
            for step in range(start, start + 30, 10):
                recorder(step, {"train/loss": 1 / step})

        return steps_of_a_session

    write_session(report(10), status="KILLED", failure="Interrupted: SIGTERM")
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    assert stored(cfg)[1].info.status == "KILLED"
    recorder = write_session(report(20))
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    client, run = stored(cfg)
    assert recorder.resumed
    assert steps(client, run, "train/loss") == [10, 20, 30, 40]
    assert (run.info.status, run.data.tags["status"], run.data.tags["sessions"]) == (
        "FINISHED",
        "finished",
        "2",
    )
    assert "failure" not in run.data.tags


class Killed(BaseException):
    """What nobody catches, as nobody catches SIGKILL."""


class Mortal:
    """The real client, whose process is killed after a number of calls: of the last, MLflow has done what was asked."""

    def __init__(self, client: MlflowClient, calls: int) -> None:
        self._client, self._left = client, calls

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            answer = getattr(self._client, name)(*values, **named)
            self._left -= 1
            if self._left == 0:
                raise Killed
            return answer

        return call


def everything(client: MlflowClient, run: Run) -> dict[str, Any]:
    """What MLflow holds of a run, but for its id and where it lies."""
    folders = [item.path for item in client.list_artifacts(run.info.run_id) if item.is_dir]
    figures = {}
    for name in "ab":
        history = client.get_metric_history(run.info.run_id, name)
        figures[name] = [(item.step, str(item.value)) for item in history]
    return {
        "figures": figures,
        "parameters": run.data.params,
        "tags": {name: value for name, value in run.data.tags.items() if name != "journal"},
        "inputs": [item.dataset.digest for item in run.inputs.dataset_inputs],
        "files": [
            item.path
            for folder in (None, *folders)
            for item in client.list_artifacts(run.info.run_id, folder)
        ],
        "status": (run.info.status, run.info.start_time, run.info.end_time),
    }


def a_whole_run(recorder: Recorder) -> None:
    """Every kind of event, figures in two batches."""
    recorder.parameters({"seed": 3})
    recorder(1, {"a": 1, "b": math.nan})
    recorder.dataset("digits", FINGERPRINT, "/data/digits", {"train": {"examples": 7}})
    recorder(2, {"a": 2, "b": math.inf})
    (recorder.run_dir / "checkpoints").mkdir(exist_ok=True)
    (recorder.run_dir / "checkpoints" / "ckpt-1.index").write_text("x")
    recorder.checkpoint("last", recorder.run_dir / "checkpoints" / "ckpt-1", 1)


def begin_anew(run_dir: Path) -> None:
    """Makes the run another one, of which no store has heard."""
    path = journal.folder(run_dir) / "journal.jsonl"
    first, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps({**json.loads(first), "identity": uuid.uuid4().hex}) + "\n" + rest)
    (journal.folder(run_dir) / "sent.json").unlink(missing_ok=True)
    (run_dir / record.RUN_ID).unlink(missing_ok=True)


def sole(cfg: Config) -> Run:
    """The one run that the store has of the journal's identity."""
    client = MlflowClient(mlflow_store.address(cfg))
    identity = next(journal.read(Path(cfg.run_dir)))[0]["identity"]
    [run] = client.search_runs(
        [item.experiment_id for item in client.search_experiments()], f"tags.journal = '{identity}'"
    )
    return run


@pytest.mark.slow
def test_a_delivery_broken_off_anywhere_is_completed_by_the_next(
    cfg: Config, write_session: Session
) -> None:
    write_session(a_whole_run)
    run_dir, uri = Path(cfg.run_dir), mlflow_store.address(cfg)
    delivery.deliver(run_dir, uri)
    client = MlflowClient(uri)
    whole, calls, done = everything(client, sole(cfg)), 0, False
    while not done:
        calls += 1
        begin_anew(run_dir)
        courier = delivery.Delivery(run_dir, uri)
        courier.client = Mortal(courier.client, calls)  # type: ignore[assignment]
        with suppress(Killed):
            done = courier.advance()
        assert delivery.deliver(run_dir, uri) == []
        assert everything(client, sole(cfg)) == whole, f"killed after call {calls}"
        assert read_run_id(run_dir) == sole(cfg).info.run_id
    assert calls > 20


def test_a_delivery_that_was_not_noted_is_repeated_without_doubles(
    cfg: Config, write_session: Session
) -> None:
    write_session(a_whole_run)
    run_dir, uri = Path(cfg.run_dir), mlflow_store.address(cfg)
    delivery.deliver(run_dir, uri)
    whole = everything(*stored(cfg))
    sent = journal.folder(run_dir) / "sent.json"
    offsets = [after for _, after in journal.read(run_dir)]
    for offset in [0, *offsets][::4]:
        state = json.loads(sent.read_text())
        state["stores"][uri]["offset"] = offset
        sent.write_text(json.dumps(state))
        delivery.deliver(run_dir, uri)
        assert everything(*stored(cfg)) == whole


def test_more_figures_than_a_batch_holds(cfg: Config, write_session: Session) -> None:
    figures = {f"m{number}": number for number in range(30)}
    write_session(lambda recorder: [recorder(step, figures) for step in range(80)])
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    client, run = stored(cfg)
    assert steps(client, run, "m29") == list(range(80))


def test_figures_that_are_not_finite_are_kept(cfg: Config, write_session: Session) -> None:
    write_session(lambda recorder: recorder(1, {"a": math.inf, "b": math.nan}))
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    _, run = stored(cfg)
    assert run.data.metrics["a"] > 1e308 and math.isnan(run.data.metrics["b"])
    assert journal.metrics(Path(cfg.run_dir))["a"][1] == math.inf


@pytest.mark.parametrize(
    "name", ["AP@[.5:.95]", "a//b", "../x", "/x", "x/", "a/./b", "Ä" * 300, "emoji 😀", "%"]
)
def test_any_name_is_accepted(cfg: Config, write_session: Session, name: str) -> None:
    write_session(lambda recorder: recorder(1, {name: 2.0, "plain": 1.0}))
    assert delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg)) == []
    assert stored(cfg)[1].data.metrics == {delivery.clean(name): 2.0, "plain": 1.0}


def test_names_that_differ_stay_different() -> None:
    assert len({delivery.clean(name) for name in ("AP@1", "AP#1", "AP_1")}) == 3
    assert delivery.clean("validation/AP50 small.x-y:z") == "validation/AP50 small.x-y:z"


def test_best_and_last_checkpoints_are_stored_with_their_steps(
    cfg: Config, write_session: Session
) -> None:
    folder = Path(cfg.run_dir) / "checkpoints"

    def save(step: int) -> Callable[[Recorder], None]:
        def report(recorder: Recorder) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            for suffix in ("index", "data-00000-of-00001"):
                (folder / f"ckpt-{step}.{suffix}").write_text(f"{step} {suffix}")
            recorder.checkpoint("last", folder / f"ckpt-{step}", step)
            if step == 1:
                recorder.checkpoint("best", folder / f"ckpt-{step}", step)

        return report

    for step in (1, 12):
        write_session(save(step))
        delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    client, run = stored(cfg)
    for which, step in (("best", 1), ("last", 12)):
        names = {
            Path(item.path).name
            for item in client.list_artifacts(run.info.run_id, f"checkpoints/{which}")
        }
        assert names == {
            "checkpoint.json",
            f"ckpt-{step}.index",
            f"ckpt-{step}.data-00000-of-00001",
        }
        assert run.data.tags[f"checkpoint_{which}_step"] == str(step)


def test_a_run_directory_may_be_moved_before_it_is_sent(
    cfg: Config, write_session: Session, tmp_path: Path
) -> None:
    def report(recorder: Recorder) -> None:
        (recorder.run_dir / "checkpoints").mkdir()
        (recorder.run_dir / "checkpoints" / "ckpt-1.index").write_text("x")
        recorder.checkpoint("last", recorder.run_dir / "checkpoints" / "ckpt-1", 1)

    write_session(report)
    moved = Path(cfg.run_dir).rename(tmp_path / "elsewhere")
    assert delivery.deliver(moved, mlflow_store.address(cfg)) == []
    assert stored(cfg)[1].data.tags["checkpoint_last_step"] == "1"


def test_a_child_names_its_parent(cfg: Config, write_session: Session, tmp_path: Path) -> None:
    write_session()
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    parent, cfg.run_dir = cfg.run_dir, str(tmp_path / "tiny" / "child")
    write_session(parent=parent)
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    child = MlflowClient(mlflow_store.address(cfg)).get_run(str(read_run_id(cfg.run_dir)))
    assert child.data.tags["mlflow.parentRunId"] == read_run_id(parent)


def test_a_failed_run_says_why(cfg: Config, write_session: Session) -> None:
    write_session(status="FAILED", failure="ValueError: loss is nan at step 7")
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    _, run = stored(cfg)
    assert (run.info.status, run.data.tags["failure"]) == (
        "FAILED",
        "ValueError: loss is nan at step 7",
    )


def test_a_text_changed_by_a_resumed_run_keeps_the_earlier_one(
    cfg: Config, write_session: Session
) -> None:
    write_session(lambda recorder: recorder.file("params.yaml", "steps: 1\n"))
    write_session(lambda recorder: recorder.file("params.yaml", "steps: 2\n"))
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    client, run = stored(cfg)
    texts = [
        Path(client.download_artifacts(run.info.run_id, name)).read_text()
        for name in ("params.yaml", "sessions/1/params.yaml")
    ]
    assert texts == ["steps: 2\n", "steps: 1\n"]
    assert "params.yaml" in run.data.tags["changed_on_resume"]


def test_a_run_deleted_in_mlflow_comes_back_when_it_goes_on(
    cfg: Config, write_session: Session
) -> None:
    write_session()
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    client, run = stored(cfg)
    client.delete_run(run.info.run_id)
    write_session(lambda recorder: recorder(5, {"a": 1}))
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    assert steps(client, stored(cfg)[1], "a") == [5]


def test_a_run_deleted_in_mlflow_while_it_runs_comes_back_at_once(
    cfg: Config, write_session: Session
) -> None:
    write_session(lambda recorder: recorder(1, {"a": 1}))
    courier = delivery.Delivery(Path(cfg.run_dir), mlflow_store.address(cfg))
    courier.advance()
    client, run = stored(cfg)
    for step, event in ((2, "metrics"), (3, "tags")):
        client.delete_run(run.info.run_id)
        journal.append(
            Path(cfg.run_dir),
            event,
            step=step,
            values={"a": step if event == "metrics" else str(step)},
        )
        courier.advance()
    assert courier.refused == []
    _, run = stored(cfg)
    assert steps(client, run, "a") == [1, 2] and run.data.tags["a"] == "3"


def test_a_store_that_lost_the_run_gets_all_of_it_again(
    cfg: Config, write_session: Session, empty_store: Path
) -> None:
    write_session(lambda recorder: recorder(1, {"a": 1}))
    delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    other = Path(cfg.runs_dir) / "other.db"
    other.write_bytes(empty_store.read_bytes())
    sent = journal.folder(Path(cfg.run_dir)) / "sent.json"
    sent.write_text(sent.read_text().replace("mlflow.db", "other.db"))
    delivery.deliver(Path(cfg.run_dir), f"sqlite:///{other}")
    client = MlflowClient(f"sqlite:///{other}")
    run = client.get_run(str(read_run_id(cfg.run_dir)))
    assert steps(client, run, "a") == [1]


def test_what_mlflow_refuses_is_named_and_does_not_hold_up_the_rest(
    cfg: Config, write_session: Session
) -> None:
    def report(recorder: Recorder) -> None:
        for value in ("one", "another"):
            journal.append(recorder.run_dir, "parameters", values={"constant": value})
        journal.append(recorder.run_dir, "file", path="vanished.txt")
        recorder(2, {"b": 1})

    write_session(report)
    refused = delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    assert len(refused) == 2 and "constant" in refused[0] and "vanished.txt" in refused[1]
    assert stored(cfg)[1].data.metrics["b"] == 1


def test_only_the_figures_that_mlflow_refuses_are_left_out_and_each_is_named(
    cfg: Config, write_session: Session
) -> None:
    def report(recorder: Recorder) -> None:
        for step in range(700):
            recorder(step, {"a": step, "b": step})
        journal.append(
            recorder.run_dir,
            "metrics",
            step=700,
            values={"bad": 1.0, "worse\x1b[31m": 1.0},
            time=-1,
        )  # Before 1970.
        recorder(701, {"a": 701})

    write_session(report)
    refused = delivery.deliver(Path(cfg.run_dir), mlflow_store.address(cfg))
    assert [line.partition(":")[0] for line in refused] == [
        "bad of step 700",
        delivery.clean("worse\x1b[31m") + " of step 700",
    ]
    assert "timestamp" in refused[0] and "\x1b" not in "".join(refused)
    client, run = stored(cfg)
    assert steps(client, run, "a") == [*range(700), 701] and steps(client, run, "b") == list(
        range(700)
    )
