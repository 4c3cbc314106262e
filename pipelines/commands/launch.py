"""Trains one experiment with several workers on this machine.    make launch EXP=resnet ARGS=workers=2

Data are built once, cores shared out. A worker that dies is started again with the others, from the
newest checkpoint (restarts=3 times at most); Ctrl-C stops all. print=slurm or print=kubernetes
prints the same as a batch script or manifest.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines import assembly, config
from pipelines.cluster import manifests
from pipelines.cluster.group import Group
from pipelines.config import Config
from pipelines.system import processes
from pipelines.system.signals import Interrupted, Interruption
from pipelines.tracking import continuation
from pipelines.usage import UsageError

OWN = config.names(Config, config.VERB, verb="launch")  # about the group, not about a worker
SHARED = "/trellis"  # where the volume of the Kubernetes manifest is mounted


def main(overrides: Sequence[str]) -> int:
    """Takes the overrides as they were written, to hand them to the workers."""
    own = [text for text in overrides if _key(text) in OWN]
    theirs = [text for text in overrides if _key(text) not in OWN]
    if not any(text.startswith(("runtime=", "run=", "@")) for text in theirs):
        theirs.append("runtime=multi_worker")
    return run(config.compose([*theirs, *own]), theirs)


def run(cfg: Config, overrides: Sequence[str]) -> int:
    """Returns 0, the exit code of the worker that the others failed with, or a signal's."""
    if cfg.workers < 1 or cfg.restarts < 0:
        raise UsageError(
            f"workers={cfg.workers} restarts={cfg.restarts}: at least 1 worker, at least 0 restarts"
        )
    cfg = _recorded(cfg) if cfg.run else config.anchored(cfg)
    config.chosen_dataset(cfg)
    if cfg.runtime.get("distribution_strategy") != "multi_worker_mirrored":
        raise UsageError(
            "runtime: workers train together under runtime=multi_worker only; leave RUNTIME out"
        )
    if cfg.print:
        print(_manifest(cfg, overrides), end="")
        return 0
    assembly.prepared(cfg)
    share = processes.share(cfg.workers)
    print(
        f"launch: {cfg.workers} workers, {share} threads each; run directory {cfg.run_dir}",
        flush=True,
    )
    command = ["train", *overrides, *_of_each_worker(cfg, overrides, share)]
    group = Group(
        command,
        workers=cfg.workers,
        restarts=cfg.restarts,
        bind=processes.end_with(os.getpid()),
    )
    try:
        with Interruption() as signals:
            signals.hold("the workers have saved")
            return group.run(signals.check)
    except Interrupted as stop:
        again = f"make launch RUN={cfg.run_dir} ARGS=workers={cfg.workers}"
        print(f"interrupted ({stop}); to resume: {again}")
        return stop.exit_code


def _key(override: str) -> str:
    return override.partition("=")[0]


def _of_each_worker(cfg: Config, overrides: Sequence[str], share: int) -> list[str]:
    """Further overrides for each worker: its threads, and the run directory."""
    recorded = continuation.threads(Path(cfg.run_dir))
    more = list(config.thread_overrides(cfg.threads, share, recorded))
    if not {"run", "run_dir"} & {_key(text) for text in overrides}:
        # The directory's name holds the time: each worker would choose its own.
        more.append(f"run_dir={config.override_value(cfg.run_dir)}")
    return more


def _manifest(cfg: Config, overrides: Sequence[str]) -> str:
    if cfg.run:
        raise UsageError("print: needs the experiment and its settings, not run=")
    paths = _paths(cfg)
    spelled = {}
    for name, path in paths.items():
        value = config.override_value(path)
        spelled[name] = f"{name}={value}"
    settings = [text for text in overrides if _key(text) not in config.paths(Config)]
    job = manifests.Job(
        experiment=cfg.name,
        workers=cfg.workers,
        restarts=cfg.restarts,
        run_dir=paths["run_dir"],
        data=[*settings, spelled["data_dir"], spelled["runs_dir"]],
        train=[*settings, *spelled.values()],
    )
    return manifests.render(str(cfg.print), job)


def _paths(cfg: Config) -> dict[str, str]:
    """Where the workers find data and runs: in a pod, paths of this machine mean nothing."""
    if cfg.print != "kubernetes":
        return {name: getattr(cfg, name) for name in config.paths(Config)}
    name = os.path.relpath(cfg.run_dir, cfg.runs_dir)
    if name.startswith(".."):
        name = os.path.basename(cfg.run_dir)
    return {
        "data_dir": f"{SHARED}/data",
        "runs_dir": f"{SHARED}/runs",
        "run_dir": f"{SHARED}/runs/{name}",
    }


def _recorded(cfg: Config) -> Config:
    """The configuration of a recorded run, to resume it, under this command's own settings."""
    recorded = assembly.to_resume(cfg, "start anew with EXP=<name>")
    own = {name: getattr(cfg, name) for name in ("run", "workers", "restarts", "print")}
    return replace(recorded, **own)
