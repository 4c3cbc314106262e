"""Prints versions, devices, space and the state of the store, and what is wrong with them.    make doctor"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from pipelines import config
from pipelines.config import Config, absolute
from pipelines.outside import reason, redacted
from pipelines.system import arithmetic, processes
from pipelines.tracking import environment, mlflow_store, runs
from pipelines.usage import ExitCode

SIX = (
    "tensorflow",
    "tf-models-official",
    "tensorflow-datasets",
    "apache-beam",
    "mlflow",
    "hydra-core",
)
DEVICES = (
    "import tensorflow as tf; print(*(device.name for device in tf.config.list_physical_devices()))"
)
DISK_BYTES = 2 << 30  # a small run with its data and checkpoints
MEMORY_BYTES = 3 << 30  # the largest of the short experiments


def run(cfg: Config) -> int:
    """Returns 1 when something is wrong."""
    wrong = [
        problem
        for check in (_packages, _machine, _folders, _store, _devices)
        for problem in check(cfg)
    ]
    print("\nnothing is wrong" if not wrong else f"\n{len(wrong)} wrong:")
    for problem in wrong:
        print(f"  {problem}")
    return ExitCode.FAILED if wrong else ExitCode.DONE


def _packages(cfg: Config) -> Iterator[str]:
    installed = dict(line.split("==") for line in environment.packages())
    _say("python", f"{platform.python_version()}  {sys.executable}")
    for name in SIX:
        _say(name, installed.get(name, "missing"))
    lock = processes.ROOT / "requirements.lock"
    wanted = locked(lock.read_text()) if lock.exists() else {}
    drift = [
        f"{name} {installed.get(name, 'missing')} for {version}"
        for name, version in wanted.items()
        if installed.get(name) != version
    ]
    _say("lock", f"{len(wanted)} packages, {len(drift)} differ")
    if not wanted:
        yield f"there is no {lock.name}; restore it: git checkout {lock.name}"
    if drift:
        yield f"installed packages differ from {lock.name} ({', '.join(drift[:5])}{', …' if len(drift) > 5 else ''}); mend: make -B setup"


def locked(text: str) -> dict[str, str]:
    """The versions that a lock asks for on this machine, by normal name."""
    lines = [
        Requirement(line.rstrip(" \\"))
        for line in text.splitlines()
        if re.match(r"[A-Za-z0-9]", line)
    ]
    here = [line for line in lines if line.marker is None or line.marker.evaluate()]
    return {environment.normal(line.name): str(line.specifier).removeprefix("==") for line in here}


def _machine(cfg: Config) -> Iterator[str]:
    memory = psutil.virtual_memory()
    _say(
        "processor",
        f"{arithmetic.model_name()}, {processes.cores()} cores, load {os.getloadavg()[0]:.1f}",
    )
    _say("memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free")
    if memory.available < MEMORY_BYTES:
        yield f"{memory.available / 2**30:.1f} GiB of memory are free, training takes up to {MEMORY_BYTES >> 30}; end other programs"
    tree = environment.source_tree()
    if tree["problem"]:
        yield f"source: git does not tell what the source is ({tree['problem']}); until it does, no run can be reproduced"
    state = (
        ""
        if tree["commit"] is None
        else f"{tree['commit'][:10]} on {tree['branch']}{', changed' if tree['dirty'] else ''}"
    )
    _say("source", f"{processes.ROOT}  {state or 'not a git work tree: runs record no commit'}")


def _folders(cfg: Config) -> Iterator[str]:
    for name in ("data_dir", "runs_dir"):
        path = absolute(getattr(cfg, name))
        if "://" in path:
            _say(name, redacted(path))
            continue
        there = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
        free = shutil.disk_usage(there).free
        _say(name, f"{path}  {free / 2**30:.1f} GiB free")
        if not os.access(there, os.W_OK):
            yield f"{name}: {there} cannot be written; choose another: {name}=…"
        if free < DISK_BYTES:
            yield f"{name}: {free / 2**30:.1f} GiB are free in {there}; make room, or choose another: {name}=…"


def _store(cfg: Config) -> Iterator[str]:
    uri = mlflow_store.address(cfg)
    database = mlflow_store.sqlite_file(uri)
    if database is not None and not database.exists():
        _say("store", f"{redacted(uri)}  not there yet, the first run creates it")
        return
    from pipelines.tracking import retrieval  # MLflow takes seconds to import.

    try:
        _say("store", f"{redacted(uri)}  {retrieval.state(uri)}")
    except Exception as error:
        _say("store", f"{redacted(uri)}  cannot be used")
        address = uri if uri == redacted(uri) else '"$MLFLOW_TRACKING_URI"'
        mend = (
            f".venv/bin/mlflow db upgrade {address}"
            if "out-of-date" in str(error)
            else "start the server, or unset MLFLOW_TRACKING_URI"
        )
        yield f"store: {reason(error, 200)}; mend: {mend}"
    waiting = [
        run_dir
        for run_dir in runs.local_runs(cfg)
        if runs.unsent(run_dir, uri) and not runs.active(run_dir)
    ]
    if waiting:
        yield f"store: {len(waiting)} runs are not wholly sent, the latest {waiting[0]}; send them: trellis sync"


def _devices(cfg: Config) -> Iterator[str]:
    # In a process of its own: a broken installation may end the process that imports it.
    found = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True)
    _say(
        "devices",
        " ".join(name.removeprefix("/physical_device:") for name in found.stdout.split()) or "none",
    )
    if found.returncode != 0:
        yield f"TensorFlow does not start: {(found.stderr.strip().splitlines() or ['no message'])[-1][:200]}; mend: make -B setup"
    elif cfg.runtime.get("num_gpus", 0) > found.stdout.count("GPU:"):
        yield f"runtime: {cfg.runtime['num_gpus']} GPUs wanted, {found.stdout.count('GPU:')} found; choose another: RUNTIME=cpu"


def _say(what: str, state: str) -> None:
    print(f"{what:<20} {state}", flush=True)


main = config.composed(run)
