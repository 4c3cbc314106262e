"""What can go wrong on the way: what the user sees, and that nothing is lost."""

import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.training import checkpoints
from tests.training.test_experiment import arguments, check_run, summary


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
    (folder / "checkpoint").write_text('model_checkpoint_path: "ckpt-2"\nall_model_checkpoint_paths: "ckpt-2"\n')
    return command, runs, straight


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_and_a_damaged_one_is_set_aside(trellis, stopped):
    command, runs, straight = stopped
    folder = runs / "run" / "checkpoints"
    size = (folder / "ckpt-2.data-00000-of-00001").stat().st_size

    # A limit on the size of files stands for the disk: the system refuses to write on.
    process = trellis.start("train", *command, limits={resource.RLIMIT_FSIZE: size // 2})
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 1, printed
    assert "could not be saved" in printed and "the last whole one: " in printed and "ckpt-2" in printed
    assert f"make train RUN={runs / 'run'}" in printed and "Traceback" not in printed

    newest = folder / "ckpt-9.data-00000-of-00001"
    newest.write_bytes((folder / "ckpt-2.data-00000-of-00001").read_bytes()[: size // 2])
    (folder / "ckpt-9.index").write_bytes((folder / "ckpt-2.index").read_bytes())
    (folder / "checkpoint").write_text('model_checkpoint_path: "ckpt-9"\nall_model_checkpoint_paths: "ckpt-9"\n')
    printed = trellis("train", *command)
    assert "ckpt-9 is damaged" in printed and "going on from" in printed and "ckpt-2" in printed
    assert check_run(runs, "run", "accuracy")["weights_sha256"] == straight["weights_sha256"]


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_the_run_can_go_on(trellis, tiny, tmp_path):
    intervals = ("train_steps", "steps_per_loop", "summary_interval", "validation_interval", "checkpoint_interval")
    command = arguments(tiny, tmp_path, "resnet", "run")
    process = trellis.start("train", *command, *(f"trainer.{name}=1000000" for name in intervals))
    first = tmp_path / "run" / "checkpoints" / "ckpt-0.index"
    while not first.exists() and process.poll() is None:
        time.sleep(0.1)
    time.sleep(5)  # Now in a block of steps, at whose end, hours from now, the first signal would be heeded.
    process.send_signal(signal.SIGINT)
    time.sleep(2)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGINT, printed
    assert "once more stops at once" in printed
    assert first.exists()
    trellis("train", *command)
    check_run(tmp_path, "run", "accuracy")


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
    done = subprocess.run([sys.executable, "-c", ECHO, *map(str, pauses)], capture_output=True, text=True, timeout=60)
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
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=20)
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
    done = subprocess.run([sys.executable, "-c", SWALLOWED, how], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "", "")


def test_without_a_whole_checkpoint_a_run_starts_anew(tmp_path):
    for step in (3, 12):
        (tmp_path / f"ckpt-{step}.index").write_bytes(b"nonsense")
        (tmp_path / f"ckpt-{step}.data-00000-of-00001").write_bytes(b"")
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "info.json").write_text('{"best_')
    said: list[str] = []
    checkpoints.mend(tmp_path, said.append)
    assert [Path(line.split()[1]).name for line in said[:2]] == ["ckpt-12", "ckpt-3"]
    assert "starting from the first step" in said[2]
    assert not list(tmp_path.glob("ckpt-*")) and len(list(tmp_path.glob("damaged-*"))) == 4
    assert not (tmp_path / "best" / "info.json").exists()
