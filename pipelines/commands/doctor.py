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
NAMED = 5  # packages that a problem names
DISK_BYTES = 2 << 30  # what a small run takes with its data and checkpoints
MEMORY_BYTES = 3 << 30  # what the largest of the short experiments takes


def run(cfg: Config) -> int:
    """Returns 1 when something is wrong."""
    problems: list[str] = []
    for check in (_packages, _machine, _folders, _store, _devices):
        problems += check(cfg)
    print(f"\n{len(problems)} wrong:" if problems else "\nnothing is wrong")
    for problem in problems:
        print(f"  {problem}")
    return ExitCode.FAILED if problems else ExitCode.DONE


def _packages(cfg: Config) -> Iterator[str]:
    installed = dict(line.split("==") for line in environment.packages())
    _say("python", f"{platform.python_version()}  {sys.executable}")
    for name in SIX:
        _say(name, installed.get(name, "missing"))
    lock = processes.ROOT / "requirements.lock"
    wanted = locked(lock.read_text()) if lock.exists() else {}
    drift = []
    for name, version in wanted.items():
        present = installed.get(name, "missing")
        if present != version:
            drift.append(f"{name} {present} for {version}")
    _say("lock", f"{len(wanted)} packages, {len(drift)} differ")
    if not wanted:
        yield f"there is no {lock.name}; restore it: git checkout {lock.name}"
    if drift:
        names = drift[:NAMED]
        if len(drift) > NAMED:
            names.append("…")
        listed = ", ".join(names)
        yield f"installed packages differ from {lock.name} ({listed}); repair: make -B setup"


def locked(text: str) -> dict[str, str]:
    """The versions that a lock asks for on this machine, by normal name."""
    versions = {}
    for line in text.splitlines():
        if not re.match(r"[A-Za-z0-9]", line):
            continue
        pinned = Requirement(line.rstrip(" \\"))
        if pinned.marker is None or pinned.marker.evaluate():
            name = environment.normal(pinned.name)
            versions[name] = str(pinned.specifier).removeprefix("==")
    return versions


def _machine(cfg: Config) -> Iterator[str]:
    memory = psutil.virtual_memory()
    free = _gib(memory.available)
    load, _, _ = os.getloadavg()
    model = arithmetic.model_name()
    cores = processes.cores()
    _say("processor", f"{model}, {cores} cores, load {load:.1f}")
    _say("memory", f"{free} of {_gib(memory.total)} free")
    if memory.available < MEMORY_BYTES:
        yield (
            f"{free} of memory are free, training takes up to {_gib(MEMORY_BYTES)}; "
            "end other programs"
        )
    tree = environment.source_tree()
    if tree["problem"]:
        yield (
            f"source: git does not tell what the source is ({tree['problem']}); "
            "until it does, no run can be reproduced"
        )
    state = "not a git work tree: runs record no commit"
    if tree["commit"] is not None:
        commit = tree["commit"][:10]
        state = f"{commit} on {tree['branch']}"
        if tree["dirty"]:
            state += ", changed"
    _say("source", f"{processes.ROOT}  {state}")


def _folders(cfg: Config) -> Iterator[str]:
    for name in ("data_dir", "runs_dir"):
        path = absolute(getattr(cfg, name))
        if "://" in path:
            _say(name, redacted(path))
            continue
        folders = (Path(path), *Path(path).parents)
        existing = next(folder for folder in folders if folder.exists())
        free = shutil.disk_usage(existing).free
        _say(name, f"{path}  {_gib(free)} free")
        if not os.access(existing, os.W_OK):
            yield f"{name}: {existing} cannot be written; choose another: {name}=…"
        if free < DISK_BYTES:
            yield (
                f"{name}: {_gib(free)} are free in {existing}; "
                f"make room, or choose another: {name}=…"
            )


def _store(cfg: Config) -> Iterator[str]:
    uri = mlflow_store.address(cfg)
    database = mlflow_store.sqlite_file(uri)
    if database is not None and not database.exists():
        _say("store", f"{redacted(uri)}  not there yet, the first run creates it")
        return
    from pipelines.tracking import retrieval  # MLflow takes seconds to import.

    try:
        state = retrieval.state(uri)
        _say("store", f"{redacted(uri)}  {state}")
    except Exception as error:
        _say("store", f"{redacted(uri)}  cannot be used")
        repair = _store_repair(uri, error)
        yield f"store: {reason(error, 200)}; repair: {repair}"
    waiting = []
    for run_dir in runs.local_runs(cfg):
        if runs.unsent(run_dir, uri) and not runs.active(run_dir):
            waiting.append(run_dir)
    if waiting:
        yield (
            f"store: {len(waiting)} runs are not wholly sent, the latest {waiting[0]}; "
            "send them: make sync"
        )


def _store_repair(uri: str, error: Exception) -> str:
    if "out-of-date" in str(error):
        address = uri if uri == redacted(uri) else '"$MLFLOW_TRACKING_URI"'
        return f".venv/bin/mlflow db upgrade {address}"
    return "start the server, or unset MLFLOW_TRACKING_URI"


def _devices(cfg: Config) -> Iterator[str]:
    # A broken installation may end the process that imports it, so another process does.
    imported = subprocess.run(
        [sys.executable, "-c", DEVICES],
        capture_output=True,
        text=True,
    )
    names = imported.stdout.replace("/physical_device:", "").split()
    _say("devices", " ".join(names) or "none")
    wanted = cfg.runtime.get("num_gpus", 0)
    present = imported.stdout.count("GPU:")
    if imported.returncode != 0:
        lines = imported.stderr.strip().splitlines() or ["no message"]
        last = lines[-1][:200]
        yield f"TensorFlow does not start: {last}; repair: make -B setup"
    elif wanted > present:
        yield f"runtime: {wanted} GPUs wanted, {present} found; choose another: RUNTIME=cpu"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _say(what: str, state: str) -> None:
    print(f"{what:<20} {state}", flush=True)


main = config.composed(run)
