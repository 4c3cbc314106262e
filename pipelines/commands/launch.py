"""Trains one experiment with several workers on this machine.    trellis launch workers=2 experiment=resnet

Data are built once, cores shared out. A worker that dies is started again with the others, from the newest checkpoint
(restarts=3 times at most); Ctrl-C stops all. print=slurm or print=kubernetes prints the same as a batch script
or manifest.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import tasks
from pipelines import config
from pipelines.cluster import manifests
from pipelines.cluster.group import Group
from pipelines.config import Config
from pipelines.data import store
from pipelines.system import processes
from pipelines.system.signals import Interrupted, Interruption
from pipelines.tracking import continuation, runs
from pipelines.usage import UsageError

OWN = config.names(Config, config.VERB, verb="launch")  # about the group, not about a worker
SHARED = "/trellis"  # where the volume of the Kubernetes manifest is mounted


def main(overrides: Sequence[str]) -> int:
    """Takes the overrides as they were written, to hand them to the workers."""
    theirs = [text for text in overrides if text.partition("=")[0] not in OWN]
    if not any(text.startswith(("runtime=", "run=", "@")) for text in theirs):
        theirs.append("runtime=multi_worker")
    own = [text for text in overrides if text.partition("=")[0] in OWN]
    return run(config.compose([*theirs, *own]), theirs)


def run(cfg: Config, overrides: Sequence[str]) -> int:
    """Returns 0, the exit code of the worker that the others failed with, or that of the signal that interrupted."""
    if cfg.workers < 1 or cfg.restarts < 0:
        raise UsageError(
            f"workers={cfg.workers} restarts={cfg.restarts}: at least 1 worker, at least 0 restarts"
        )
    given = {text.partition("=")[0] for text in overrides}
    cfg = _recorded(cfg) if cfg.run else config.anchored(cfg)
    dataset = config.chosen_dataset(cfg)
    if cfg.runtime.get("distribution_strategy") != "multi_worker_mirrored":
        raise UsageError(
            "runtime: workers train together under runtime=multi_worker only; leave RUNTIME out"
        )
    if cfg.print:
        print(
            _manifest(
                cfg,
                [text for text in overrides if text.partition("=")[0] not in config.paths(Config)],
            ),
            end="",
        )
        return 0
    store.obtain(cfg, tasks.load(dataset.task))
    share = processes.share(cfg.workers)
    theirs = [
        *overrides,
        *config.thread_overrides(cfg.threads, share, continuation.threads(Path(cfg.run_dir))),
    ]
    if not given & {"run", "run_dir"}:  # It holds the time: each worker would choose its own.
        theirs.append(f"run_dir={config.override_value(cfg.run_dir)}")
    print(
        f"launch: {cfg.workers} workers, {share} threads each; run directory {cfg.run_dir}",
        flush=True,
    )
    group = Group(["train", *theirs], cfg.workers, cfg.restarts, processes.end_with(os.getpid()))
    try:
        with Interruption() as signals:
            signals.hold("the workers have saved")
            return group.run(signals.check)
    except Interrupted as stop:
        print(
            f"interrupted ({stop}); to go on: make launch RUN={cfg.run_dir} ARGS=workers={cfg.workers}"
        )
        return stop.exit_code


def _manifest(cfg: Config, overrides: list[str]) -> str:
    if cfg.run:
        raise UsageError("print: needs the experiment and its settings, not run=")
    root = SHARED if cfg.print == "kubernetes" else ""
    places = {key: getattr(cfg, key) for key in config.paths(Config)}
    if root:  # Paths of this machine mean nothing in a pod.
        within = os.path.relpath(cfg.run_dir, cfg.runs_dir)
        name = within if not within.startswith("..") else os.path.basename(cfg.run_dir)
        places = {
            "data_dir": f"{root}/data",
            "runs_dir": f"{root}/runs",
            "run_dir": f"{root}/runs/{name}",
        }
    spelled = [f"{key}={config.override_value(value)}" for key, value in places.items()]
    data, train = [*overrides, *spelled[:2]], [*overrides, *spelled]
    job = manifests.Job(cfg.name, cfg.workers, cfg.restarts, places["run_dir"], data, train)
    return manifests.render(str(cfg.print), job)


def _recorded(cfg: Config) -> Config:
    """The configuration of a recorded run, to go on with it, under this command's own settings."""
    record = runs.find(cfg.run, cfg)
    run_dir = runs.directory(record, cfg.run, "start anew with EXP=<name>")
    recorded = config.from_yaml(record.texts["config.yaml"])
    recorded.run_dir, recorded.run = str(run_dir), cfg.run
    recorded.workers, recorded.restarts, recorded.print = cfg.workers, cfg.restarts, cfg.print
    return recorded
