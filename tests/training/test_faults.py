"""What can go wrong on the way: what the user sees, and that nothing is lost."""

import json
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import tensorflow as tf

from pipelines.system import signals
from pipelines.training import checkpoints
from pipelines.training.faults import NotSaved
from pipelines.usage import UsageError
from tests.training.test_experiment import arguments, check_run, recorded, summary


@pytest.fixture(scope="module")
def stopped(trellis, tiny, tmp_path_factory):
    """A run of four steps that ended after the second: its command, its folder."""
    runs = tmp_path_factory.mktemp("faults")
    command = arguments(tiny, runs, "resnet", "run")
    trellis("train", *command)
    straight = summary(runs / "run")
    folder = runs / "run" / "checkpoints"
    shutil.rmtree(folder / "best")
    for file in folder.glob("ckpt-4.*"):
        file.unlink()
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "ckpt-2"\nall_model_checkpoint_paths: "ckpt-2"\n'
    )
    return command, runs, straight


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_and_a_damaged_one_is_set_aside(trellis, stopped):
    command, runs, straight = stopped
    folder = runs / "run" / "checkpoints"
    size = (folder / "ckpt-2.data-00000-of-00001").stat().st_size

    # A limit on the size of files stands for the disk: the system refuses to write on.
    process = trellis.start("train", *command, limits={resource.RLIMIT_FSIZE: size // 2})
    printed, _ = process.communicate(timeout=900)
    assert process.returncode == 1, printed
    assert (
        "could not be saved" in printed
        and "the last whole one: " in printed
        and "ckpt-2" in printed
    )
    assert f"make train RUN={runs / 'run'}" in printed and "Traceback" not in printed

    newest = folder / "ckpt-9.data-00000-of-00001"
    newest.write_bytes((folder / "ckpt-2.data-00000-of-00001").read_bytes()[: size // 2])
    (folder / "ckpt-9.index").write_bytes((folder / "ckpt-2.index").read_bytes())
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "ckpt-9"\nall_model_checkpoint_paths: "ckpt-9"\n'
    )
    printed = trellis("train", *command)
    assert "ckpt-9 is damaged" in printed and "resuming from" in printed and "ckpt-2" in printed
    assert check_run(runs, "run", "accuracy")["weights_sha256"] == straight["weights_sha256"]


def cpu_s(process: subprocess.Popen) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_the_run_can_go_on(trellis, tiny, tmp_path):
    intervals = (
        "train_steps",
        "steps_per_loop",
        "summary_interval",
        "validation_interval",
        "checkpoint_interval",
    )
    command = arguments(tiny, tmp_path, "resnet", "run")
    process = trellis.start("train", *command, *(f"trainer.{name}=1000000" for name in intervals))
    first = tmp_path / "run" / "checkpoints" / "ckpt-0.index"
    while not first.exists() and process.poll() is None:
        time.sleep(0.1)
    # Then in a block of steps, at whose end, hours from now, the first signal would be heeded.
    before = cpu_s(process)
    while process.poll() is None and cpu_s(process) < before + 3:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = ""
    for line in process.stdout:
        said += line
        if "once more stops at once" in line:
            break
    time.sleep(2 * signals.ECHO_S)
    assert process.poll() is None, said + process.communicate()[0]
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=300)
    printed = said + printed
    assert process.returncode == 128 + signal.SIGINT, printed
    assert "once more stops at once" in printed
    assert first.exists()
    resumed = trellis.start("train", f"run={tmp_path / 'run'}", f"runs_dir={tmp_path}")
    said = ""
    for line in resumed.stdout:
        said += line
        if line.startswith("memory:"):  # The model stands, and nothing has been refused.
            break
    resumed.kill()
    rest, _ = resumed.communicate()
    assert "training resnet" in said and "memory:" in said, said + rest


ECHO = """
import os, signal, sys, time
from pipelines.system.signals import Interrupted, Interruption
try:
    with Interruption() as signals:
        signals.hold("this block of steps")
        for pause in map(float, sys.argv[1:]):
            time.sleep(pause)
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        signals.check()
except Interrupted as stop:
    print("saved")
    sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize(("pauses", "said"), [((0, 0), "saved\n"), ((0, 0.4), "")])
def test_a_stop_that_arrives_twice_is_one_stop_unless_it_was_meant(pauses, said):
    done = subprocess.run(
        [sys.executable, "-c", ECHO, *map(str, pauses)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, said)
    assert done.stderr.count("once more stops at once") == 1


LOST = """
import os, signal, sys, time
from pipelines.system.signals import Interrupted, Interruption
class Freed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
try:
    with Interruption() as signals:
        Freed()
        time.sleep(30)
except Interrupted as stop:
    print("stopped")
    sys.exit(stop.exit_code)
"""


def test_a_signal_that_comes_while_an_object_is_freed_is_not_lost():
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "stopped\n", "")


SWALLOWED = """
import os, signal, sys
from pipelines.system.signals import Interrupted, Interruption
def stop():
    os.kill(os.getpid(), signal.SIGTERM)
try:
    with Interruption():
        try:
            stop()
        except BaseException as error:
            if sys.argv[1] == "changed":
                raise RuntimeError("Error calling __set_name__") from error
        with Interruption():
            print("went on")
except Interrupted as stop:
    sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize("how", ["changed", "swallowed"])
def test_a_signal_of_which_a_library_makes_another_error_is_still_a_signal(how):
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED, how], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "", "")


def saved(prefix: Path, step: int) -> str:
    prefix.parent.mkdir(exist_ok=True)
    return tf.train.Checkpoint(global_step=tf.Variable(step, dtype=tf.int64)).write(str(prefix))


def figure(folder: Path, step: int) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "info.json").write_text(
        json.dumps({"accuracy": 0.5, "best_ckpt_global_step": float(step)})
    )


def test_a_best_checkpoint_that_was_lost_is_never_replaced_in_silence(tmp_path):
    """What a stop between the figure and the weights left behind: the figure of step 200, the weights of step 100."""
    older, newest = saved(tmp_path / "best" / "best_ckpt-1", 100), saved(tmp_path / "ckpt-300", 300)
    figure(tmp_path / "best", 200)
    said: list[str] = []
    assert checkpoints.best(tmp_path, said.append) == older
    assert (
        "of step 200, is lost" in said[0]
        and "step 100, which no evaluation has found to be the best" in said[1]
    )
    assert checkpoints.saved(tmp_path, newest)["best"] == (str(tmp_path / "best"), 100)
    same = saved(tmp_path / "ckpt-200", 200)
    said.clear()
    assert checkpoints.best(tmp_path, said.append) == same and "saved at the same step" in said[0]
    said.clear()
    checkpoints.repair(tmp_path, said.append)
    assert "of step 200, is lost" in said[0] and not (tmp_path / "best" / "info.json").exists()
    for file in (tmp_path / "best").iterdir():
        file.unlink()
    said.clear()
    assert checkpoints.best(tmp_path, said.append) == newest and "no evaluation" in said[0]


def test_a_checkpoint_is_named_by_best_last_or_its_step(tmp_path):
    chosen = saved(tmp_path / "best" / "best_ckpt-100", 100)
    figure(tmp_path / "best", 100)
    same, last = saved(tmp_path / "ckpt-100", 100), saved(tmp_path / "ckpt-300", 300)
    named = {"best": chosen, "last": last, "100": same, "300": last}
    for name, prefix in named.items():
        assert checkpoints.chosen(tmp_path, name, print) == prefix
    for name in ("200", "first"):
        with pytest.raises(UsageError, match=f"'{name}'; say best, last or .* 100, 300"):
            checkpoints.chosen(tmp_path, name, print)
    with pytest.raises(UsageError, match="one: none"):
        checkpoints.chosen(tmp_path / "empty", "last", print)


def test_a_stop_between_the_weights_and_their_figure_leaves_the_best_before(tmp_path):
    before, _ = (
        saved(tmp_path / "best" / "best_ckpt-100", 100),
        saved(tmp_path / "best" / "best_ckpt-200", 200),
    )
    figure(tmp_path / "best", 100)
    said: list[str] = []
    assert checkpoints.best(tmp_path, said.append) == before
    checkpoints.repair(tmp_path, said.append)
    assert said == [] and tf.train.latest_checkpoint(str(tmp_path / "best")) == before
    assert not list((tmp_path / "best").glob("*200*"))


def test_a_best_checkpoint_that_cannot_be_saved_leaves_the_one_before(tmp_path):
    trainer = SimpleNamespace(
        best_checkpoint_export_subdir="best",
        best_checkpoint_eval_metric="AP",
        best_checkpoint_metric_comp="higher",
    )
    step = tf.Variable(1, dtype=tf.int64)
    exporter = checkpoints.best_exporter(trainer, tmp_path)
    assert exporter.maybe_export_checkpoint(tf.train.Checkpoint(global_step=step), {"AP": 0.5}, 1)
    (tmp_path / "best" / "info.json.tmp").mkdir()  # stands for a disk that refuses
    step.assign(2)
    with pytest.raises(NotSaved, match="could not be saved in .*best"):
        exporter.maybe_export_checkpoint(tf.train.Checkpoint(global_step=step), {"AP": 0.6}, 2)
    said: list[str] = []
    assert checkpoints.stored_step(checkpoints.best(tmp_path, said.append)) == 1 and said == []
    assert checkpoints.saved(tmp_path, None)["best"][1] == 1
    (tmp_path / "best" / "info.json.tmp").rmdir()
    assert exporter.maybe_export_checkpoint(tf.train.Checkpoint(global_step=step), {"AP": 0.6}, 2)
    assert checkpoints.stored_step(checkpoints.best(tmp_path, said.append)) == 2 and said == []


@pytest.mark.parametrize(
    "state",
    [
        None,
        "",
        "nonsense",
        'model_checkpoint_path: "ckpt-2"\n',
        'model_checkpoint_path: "ckpt-9"\n',
    ],
)
def test_a_run_goes_on_from_the_newest_whole_checkpoint_whatever_the_list_says(tmp_path, state):
    for step in (2, 4):
        saved(tmp_path / f"ckpt-{step}", step)
    if state is not None:
        (tmp_path / "checkpoint").write_text(state)
    said: list[str] = []
    checkpoints.repair(tmp_path, said.append)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-4")
    assert len(said) == 1 and f"resuming from {tmp_path / 'ckpt-4'}" in said[0]
    said.clear()
    checkpoints.repair(tmp_path, said.append)
    assert said == []


STOPPED = """
import os, sys
from pipelines.__main__ import main
from pipelines.commands import train
moment, step, number = sys.argv.pop(), int(sys.argv.pop()), int(sys.argv.pop())
original = train._train
def patched(*arguments):
    from official.core import train_utils
    write = train_utils.BestCheckpointExporter.export_best_eval_metric
    def stopped(self, logs, now):
        if now == step and moment == "before":
            os.kill(os.getpid(), number)
        write(self, logs, now)
        if now == step and moment == "after":
            os.kill(os.getpid(), number)
    train_utils.BestCheckpointExporter.export_best_eval_metric = stopped
    return original(*arguments)
train._train = patched
main()
"""
AVERAGED = ["trainer.train_steps=8", "trainer.validation_interval=2", "trainer.optimizer_config.ema.average_decay=0.9",
    "trainer.optimizer_config.learning_rate.cosine.initial_learning_rate=0.3"]  # fmt: skip


@pytest.mark.slow
def test_the_best_checkpoint_is_the_best_whenever_a_run_was_stopped_while_it_was_saved(
    trellis, tiny, tmp_path
):
    def best(run: str) -> tuple[dict, int]:
        folder = tmp_path / run / "checkpoints" / "best"
        (prefix,) = [file.with_suffix("") for file in folder.glob("*.index")]
        return json.loads((folder / "info.json").read_text()), checkpoints.stored_step(str(prefix))

    trellis("train", *arguments(tiny, tmp_path, "resnet", "straight", *AVERAGED))
    expected, step = best("straight")
    assert expected["best_ckpt_global_step"] == step and expected["accuracy"] > 0.3
    for moment, number in (
        ("after", signal.SIGKILL),
        ("before", signal.SIGKILL),
        ("after", signal.SIGTERM),
    ):
        run = f"{moment}{number}"
        command = arguments(tiny, tmp_path, "resnet", run, *AVERAGED)
        program = [
            sys.executable,
            "-c",
            STOPPED,
            "train",
            *command,
            str(int(number)),
            str(step),
            moment,
        ]
        done = subprocess.run(program, capture_output=True, text=True, timeout=900)
        assert done.returncode == (-number if number == signal.SIGKILL else 128 + number), (
            done.stdout + done.stderr
        )
        trellis("train", *command)
        assert best(run) == (expected, step), run
        found = check_run(tmp_path, run, "accuracy", 8)
        _, entry = recorded(tmp_path, found["mlflow_run_id"])
        assert entry.data.tags["checkpoint_best_step"] == str(step)
        trellis(
            "evaluate",
            f"run={tmp_path / run}",
            f"runs_dir={tmp_path}",
            *tiny["classification"][-1:],
        )
        evaluation = summary(tmp_path / run / "evaluation")
        assert evaluation["steps"] == step
        # Averages are what was evaluated; the weights beside them would give another loss.
        assert evaluation["metrics"]["validation_loss"] == expected["validation_loss"], run


def png_without_pixels() -> bytes:
    """A PNG that is whole by its chunks and has one row of its 32: only decoding finds out."""
    header = struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(33))), (b"IEND", b""))
    spelled = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(spelled)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_record_that_cannot_be_decoded_is_named(trellis, tiny, tmp_path, split):
    trellis(
        "data", "experiment=resnet", *tiny["classification"][:-1], f"data_dir={tmp_path / 'built'}"
    )
    (tmp_path / "records").mkdir()
    for each in ("train", "validation"):
        records = [
            record
            for file in sorted((tmp_path / "built").rglob(f"{each}-*.tfrecord"))
            for record in tf.data.TFRecordDataset(str(file))
        ]
        with tf.io.TFRecordWriter(str(tmp_path / "records" / f"{each}-0")) as writer:
            for number, record in enumerate(records):
                example = tf.train.Example.FromString(record.numpy())
                if each == split and number == 7:
                    image = example.features.feature["image/encoded"].bytes_list
                    image.value[0] = png_without_pixels()
                writer.write(example.SerializeToString())
    images = f"dataset.images={{train: '{tmp_path}/records/train-*', validation: '{tmp_path}/records/validation-*'}}"
    chosen = [
        "dataset=tfrecord",
        "dataset.task=classification",
        images,
        "dataset.validate=none",
        f"data_dir={tmp_path / 'adopted'}",
    ]
    others = [
        argument
        for argument in arguments(tiny, tmp_path, "resnet", "run")
        if argument not in tiny["classification"]
    ]
    printed = trellis("train", *others, *chosen, code=2)
    assert (
        re.search(rf"{split}-0.*: record 7 of the shard .*cannot be decoded", printed)
        and "Traceback" not in printed
    )


def test_without_a_whole_checkpoint_a_run_starts_anew(tmp_path):
    for step in (3, 12):
        (tmp_path / f"ckpt-{step}.index").write_bytes(b"nonsense")
        (tmp_path / f"ckpt-{step}.data-00000-of-00001").write_bytes(b"")
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "info.json").write_text('{"best_')
    said: list[str] = []
    checkpoints.repair(tmp_path, said.append)
    assert [Path(line.split()[1]).name for line in said[:2]] == ["ckpt-12", "ckpt-3"]
    assert "starting from the first step" in said[2]
    assert not list(tmp_path.glob("ckpt-*")) and len(list(tmp_path.glob("damaged-*"))) == 4
    assert not (tmp_path / "best" / "info.json").exists()
