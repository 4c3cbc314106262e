"""Tries experiments of the catalogue, and keeps what was measured in conf/catalogue.yaml and docs/catalogue.md.

    make test-matrix                                   what is not measured yet at these versions and settings
    make test-matrix ARGS="only=yolov7,detr_coco again=1"   these, measured or not
    make test-matrix ARGS="seconds=280 jobs=2"         no further one begins after so many seconds; two at a time
    make test-matrix ARGS="only=yolov7 again=1 keep=no"   measures, and leaves the record as it is
    make test-matrix ARGS="brief=yolov7 keep=no"          composes, builds and trains it, without what follows
    make test-matrix ARGS="only=yolov7 exports=1"         asks again why it is not exported, which takes no training

One process imports TensorFlow and runs nothing of it; every experiment is tried in two copies of that process.
"""

import gc
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.system import processes
from tests.conftest import ROOT, tiny_data
from tests.matrix import record, stages

LIMIT_S = 400  # for one process, beside others


@dataclass
class Child:
    """A process that tries an experiment: what follows it, and what it has cost so far."""

    name: str
    folder: Path
    began: float = 0.0
    is_brief: bool = False
    is_second: bool = False
    cpu_s: float = 0.0
    peak_mb: int = 0


def main(words: list[str]) -> int:
    """Measures; 1 where something that was measured does not work."""
    options = dict(word.split("=", 1) for word in words)
    folder = Path(options.get("folder") or tempfile.mkdtemp(prefix="matrix-"))
    data = tiny_data(folder / "data")
    brief = record.known(options.get("brief", ""))
    again = "again" in options or "exports" in options
    waiting = [] if brief and "only" not in options else record.waiting(options.get("only"), again)
    print(f"{len(waiting) + len(brief)} to measure, in {folder}", flush=True)
    _prepare(data, folder)
    if "exports" in options:
        return _refused(waiting, data, folder)
    until = time.monotonic() + float(options.get("seconds", "inf"))
    children = [Child(name, folder / "runs" / name, is_brief=True) for name in brief]
    children += [Child(name, folder / "runs" / name) for name in waiting]
    is_kept = options.get("keep") != "no"
    failed = _measure(children, data, until, int(options.get("jobs", 1)), is_kept)
    if is_kept:
        record.keep_the_rest()
    return 1 if failed else 0


def _prepare(data: Mapping[str, list[str]], folder: Path) -> None:
    """Builds the data and imports everything, once for all."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # Its threads would not be copied.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    from pipelines import assembly, config

    for kind in data:
        assembly.with_data(config.anchored(config.compose([*data[kind], f"run_dir={folder}"])))
    from pipelines.training import imports

    with imports.postponed():
        from official.vision.serving import export_tflite_lib  # noqa: F401

        from pipelines.shipping import conversion  # noqa: F401
        from pipelines.training import inference, loop, projects, upstream, workers  # noqa: F401

        for project in projects.REGISTERING:
            projects.trouble(project)
    if upstream.has_begun():
        raise SystemExit(
            "TensorFlow has begun to run at its import: copies of this process would not work"
        )
    # What is imported stays: looking through all of it for what could be freed takes a tenth of a tracing.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _refused(names: list[str], data: Any, folder: Path) -> int:
    """Asks for the refusals of exports; 1 where there is none."""
    failed = 0
    for name in names:
        child = Child(name, folder / "runs" / name)
        child.folder.mkdir(parents=True)
        os.waitpid(_started(child, data, stages.refusals), 0)
        says = record.keep_refusals(name, child.folder)
        print(f"{name:<36} {says}", flush=True)
        failed |= not says.startswith(stages.REFUSED)
    return failed


def _measure(waiting: list[Child], data: Any, until: float, jobs: int, is_kept: bool) -> int:
    """Tries them, some at a time; how many do not work."""
    running: dict[int, Child] = {}
    failed = 0
    while waiting or running:
        while waiting and len(running) < jobs and time.monotonic() < until:
            child = waiting.pop(0)
            shutil.rmtree(child.folder, ignore_errors=True)
            child.folder.mkdir(parents=True)
            running[_started(child, data, stages.first)] = child
        if not running:
            break
        pid, status = _ended(running)
        child = running.pop(pid)
        is_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if is_killed and _goes_on(child):
            child.is_second = True
            running[_started(child, data, stages.second)] = child
            continue
        failed += not _told(child, status, is_kept)
        shutil.rmtree(child.folder / "checkpoints", ignore_errors=True)
    return failed


def _goes_on(child: Child) -> bool:
    """Whether what was killed is to be resumed."""
    is_first = not child.is_second and not child.is_brief
    return is_first and record.has(child.folder, "trained")


def _told(child: Child, status: int, is_kept: bool) -> bool:
    """Prints, and keeps, what became of an experiment; whether it works."""
    if child.is_brief:
        why = record.in_brief(child.folder, status)
        row = {"status": f"fails: {why}" if why else record.WORKS}
    else:
        row = record.judged(child.name, child.folder, status, child.cpu_s, child.peak_mb)
        if is_kept:
            record.keep(child.name, row)
    words = f"{row['status']}  {child.cpu_s:.0f} CPU s  {row.get('why', '')}"
    print(f"{child.name:<36} {words}", flush=True)
    return row["status"] == record.WORKS


def _started(child: Child, data: Any, stage: Callable[[Any], None]) -> int:
    """Tries a stage in a copy of this process; its number."""
    sys.stdout.flush()
    child.began = time.monotonic()
    end_with_this = processes.end_with(os.getpid())
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if end_with_this:
            end_with_this()
        log = os.open(child.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        stage(record.composed(child.name, data, child.folder))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ended(running: dict[int, Child]) -> tuple[int, int]:
    """Waits until one of the processes ends, or takes too long and is ended."""
    while True:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid in running:
            child = running[pid]
            child.cpu_s += usage.ru_utime + usage.ru_stime
            child.peak_mb = max(child.peak_mb, usage.ru_maxrss // 1024)
            return pid, status
        for number, child in running.items():
            if time.monotonic() - child.began > LIMIT_S:
                os.kill(number, signal.SIGTERM)
        time.sleep(0.1)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
