"""How the pace of a training is read off what it prints; nothing here measures a training."""

import contextlib
import sys
import time

import psutil
import pytest

from benchmarks import train

SAYING = """
import subprocess, sys, time
beside = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("beside", beside.pid, file=open(sys.argv[1], "w"), flush=True)
for step in (20, 40, 60):
    print(f"step {step}/60  1.00 steps/s  ETA 0:01  loss 1.0000", flush=True)
    time.sleep(0.2 if step > 20 else 0.6)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_the_rate_is_that_after_the_second_block_and_nothing_outlives_the_last(tmp_path) -> None:
    file = tmp_path / "beside"
    began = time.monotonic()
    pace = train.pace([sys.executable, "-c", SAYING, str(file)], 60)
    assert time.monotonic() - began < 30
    assert 30 < pace.rate <= 100  # 20 steps in 0.2 s; the 20 before took 0.6 s.
    assert pace.start_s < 10
    deadline = time.monotonic() + 10
    while is_running(int(file.read_text().split()[1])):
        assert time.monotonic() < deadline


def test_a_process_that_ends_before_its_last_step_has_failed() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        train.pace([sys.executable, "-c", "print('no such thing')"], 20)
