"""How the pace of a training is read off what it prints; nothing here measures a training."""

import contextlib
import math
import sys
import time

import psutil
import pytest

from benchmarks import train

SAYING = """
import subprocess, sys, time
beside = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("beside", beside.pid, file=open(sys.argv[1], "w"), flush=True)
for step in (20, 40, 60):
    print(f"step {step}/60  1.00 steps/s  ETA 0:01  loss 1.0000", flush=True)
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_the_rate_is_that_after_the_second_block() -> None:
    seen = [(20, 14.0, 9.0), (40, 22.0, 12.0), (60, 24.0, 13.5), (80, 27.0, 14.5)]
    expected = train.Pace(start_s=4.0, rate=40 / 5, start_cpu_s=9.0, step_cpu_s=2.5 / 40)
    assert train._pace(10.0, seen) == expected


def test_one_block_has_a_start_and_no_rate() -> None:
    pace = train._pace(10.0, [(20, 14.0, 9.0)])
    assert (pace.start_s, pace.start_cpu_s) == (4.0, 9.0)
    assert math.isnan(pace.rate) and math.isnan(pace.step_cpu_s)


def test_nothing_outlives_the_last_step(tmp_path) -> None:
    file = tmp_path / "beside"
    train.pace([sys.executable, "-c", SAYING, str(file)], 60)
    deadline = time.monotonic() + 60
    while is_running(int(file.read_text().split()[1])):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_ends_before_its_last_step_has_failed() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        train.pace([sys.executable, "-c", "print('no such thing')"], 20)
