"""This tool in another process, the cores that processes share, and how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.system import processes

V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True)"
HEARING = "import time; print('ready', flush=True)"


def started(code: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", f"{code}; time.sleep(60)"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    return process


def test_another_process_runs_this_tree_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__main__.py").write_text("print('a stranger')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command, environment = processes.this_tool("--help")
    output = subprocess.check_output(command, env=environment, cwd=tmp_path, text=True)
    assert "trellis <verb>" in output and "stranger" not in output


def test_another_process_can_run_another_tree(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__main__.py").write_text("import sys; print(*sys.argv[1:])")
    command, environment = processes.this_tool("train", "seed=1", root=tmp_path)
    assert subprocess.check_output(command, env=environment, text=True) == "train seed=1\n"


def test_the_root_holds_what_is_ours() -> None:
    assert {"pipelines", "tasks", "conf"} <= {path.name for path in processes.ROOT.iterdir()}


@pytest.fixture
def machine(tmp_path: Path):
    """Writes the kernel's files about the control groups of this process."""

    def write(mounts: str, own: str, files: dict[str, str]) -> Path:
        described = {"proc/self/mountinfo": mounts, "proc/self/cgroup": own, **files}
        for name, content in described.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content + "\n")
        return tmp_path

    return write


def bound() -> int:
    return len(psutil.Process().cpu_affinity())


def test_without_a_limit_the_bound_cores_count(machine) -> None:
    unlimited = {"sys/fs/cgroup/box/cpu.max": "max 100000"}
    assert processes.cores(machine(V2, "0::/box", unlimited)) == bound()
    unlimited = {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert processes.cores(machine(V1, "2:cpu,cpuacct:/", unlimited)) == bound()


@pytest.mark.parametrize("quota, granted", [(50_000, 1), (100_000, 1), (10_000_000_000, None)])
def test_a_container_counts_the_cores_that_it_is_given(machine, quota: int, granted) -> None:
    files = {
        "sys/fs/cgroup/pod/cpu.max": f"{quota} 100000",
        "sys/fs/cgroup/pod/box/cpu.max": "max 100000",
    }
    assert processes.cores(machine(V2, "0::/pod/box", files)) == (granted or bound())


def test_a_container_of_version_1_counts_too(machine) -> None:
    files = {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "90000",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert processes.cores(machine(V1, "2:cpu,cpuacct:/\n4:memory:/", files)) == 1


def test_a_process_bound_to_one_core_has_one() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from pipelines.system import processes; print(processes.cores(), processes.share(4))"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=processes.ROOT)
    assert printed == "1 1\n"


def test_those_that_do_not_end_when_asked_are_killed_together() -> None:
    both = [started(DEAF), started(HEARING)]
    processes.stop(both, patience_s=1)
    assert [process.returncode for process in both] == [-signal.SIGKILL, -signal.SIGTERM]


def test_waiting_ends_with_the_last_or_the_time() -> None:
    process = started(HEARING)
    processes.wait([process], 0.1)
    assert process.poll() is None
    process.terminate()
    processes.wait([process], 60)
    assert process.returncode == -signal.SIGTERM
    processes.kill([process])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
def test_a_process_ends_with_its_parent() -> None:
    parent = (
        "import os, subprocess, sys; from pipelines.system import processes;"
        f"child = subprocess.Popen([sys.executable, '-c', {HEARING + '; time.sleep(60)'!r}],"
        "stdout=subprocess.PIPE, preexec_fn=processes.end_with(os.getpid()));"
        "child.stdout.readline(); print(child.pid, flush=True); import time; time.sleep(60)"
    )
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=processes.ROOT
    ) as process:
        assert process.stdout
        child = psutil.Process(int(process.stdout.readline()))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        until = time.monotonic() + 120
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_server_and_its_children_end_quietly_with_ctrl_c(tmp_path: Path) -> None:
    server = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '100'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    code = (
        "import os, sys\n"
        "from pipelines.system import processes\n"
        "from pipelines.system.signals import Interruption\n"
        "with Interruption():\n"
        f"    code = processes.serve([sys.executable, '-c', {server!r}], os.environ)\n"
        "sys.exit(code)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    os.killpg(process.pid, signal.SIGINT)
    printed = process.communicate(timeout=120)
    assert (process.returncode, *printed) == (0, "", "")
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
