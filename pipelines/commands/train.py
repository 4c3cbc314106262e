"""Trains one experiment on its data, evaluates and records it.    make train EXP=retinanet

Data that are missing are built first. Running again in the same run directory goes on where it stopped
(run_dir=<directory> again, or run=<MLflow run id or run directory> alone).
"""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

import tasks
from pipelines import config
from pipelines.cluster import membership
from pipelines.config import Config
from pipelines.data import store
from pipelines.data.manifest import Manifest
from pipelines.reproduction import classes
from pipelines.system.signals import Interrupted, Interruption
from pipelines.tracking import continuation, environment, journal, runs, session
from pipelines.tracking.record import read_run_id
from pipelines.tracking.recording import Recorder
from pipelines.training import process
from pipelines.usage import ExitCode, UsageError


def run(cfg: Config) -> int:
    """Returns 0, 128 plus the number of the signal that interrupted the run, or 75 when another worker has gone."""
    started = time.monotonic()
    environment.at_start()  # Building data may take hours, in which somebody edits.
    cfg = config.anchored(_recorded(cfg) if cfg.run else cfg)
    cfg = continuation.settled(Path(cfg.run_dir), cfg)
    if cfg.runtime.get("distribution_strategy") == "multi_worker_mirrored":
        member = membership.join(os.environ)
        if not member.is_chief:
            return _follow(cfg, Path(cfg.run_dir) / "workers" / str(member.index))
    task = tasks.load(config.chosen_dataset(cfg).task)
    run_dir = Path(cfg.run_dir)
    data = store.obtain(cfg, task)
    continuation.refuse_other_data(run_dir, cfg, data.fingerprint)
    _warn_of_another_class(run_dir)
    seconds = {"data": round(time.monotonic() - started, 2)}
    try:
        with process.prepared(cfg, run_dir):
            return _train(cfg, task, data, run_dir, seconds, started)
    finally:
        with contextlib.suppress(OSError):  # Only an empty one goes: nothing has been recorded.
            run_dir.rmdir()


def _train(
    cfg: Config, task: Any, data: Manifest, run_dir: Path, seconds: dict[str, float], started: float
) -> int:
    sender = session.start_sender(cfg)  # Imports MLflow while this process imports TensorFlow.
    from pipelines.training import (  # TensorFlow: 10 s.
        determinism,
        experiment,
        faults,
        parameters,
        strategy,
        workers,
    )

    cfg = replace(
        cfg, threads=determinism.pin_threads(cfg.threads)
    )  # Recorded as counts, not as "all cores".
    params = parameters.build(cfg, task, data)
    devices = strategy.build(params.runtime, cfg.logical_cpus)
    strategy.refuse_uneven(params, devices, data.splits["validation"].examples)
    continuation.refuse_other_devices(run_dir, cfg, strategy.describe(devices))
    outcome = experiment.Outcome()
    headline = params.trainer.best_checkpoint_eval_metric
    try:
        with (
            workers.interruption(devices) as signals,
            _recording(cfg, sender, signals) as recorder,
        ):
            recorder.file("params.yaml", yaml.safe_dump(params.as_dict(), sort_keys=False))
            recorder.file("manifest.json", data.to_json())
            recorder.dataset(
                data.dataset, data.fingerprint, str(data.directory), json.loads(data.to_json())
            )
            recorder.parameters(_chosen(cfg, params, data))
            # A tag, not a parameter: MLflow keeps the first of a parameter, and this may change with determinism=off.
            recorder.tags({"strategy": params.runtime.distribution_strategy})
            recorder.environment(
                determinism_class={**determinism.describe(cfg), **strategy.describe(devices)}
            )
            recorder.summary.update(experiment=cfg.name, run_dir=str(run_dir), seed=cfg.seed)
            print(
                f"training {cfg.name} on {data.dataset}: {params.trainer.train_steps} steps; run directory {run_dir}"
            )
            seconds["setup"] = round(time.monotonic() - started - seconds["data"], 2)
            try:
                experiment.train(
                    params,
                    run_dir,
                    outcome,
                    devices=devices,
                    exact=cfg.determinism,
                    record_flight=cfg.flight,
                    report=recorder,
                    signals=signals,
                    evaluated_steps=frozenset(_recorded_figures(run_dir, headline)),
                )
            finally:
                signals.hold("the run is recorded")
                _summarise(recorder, outcome, headline, seconds)
    except Interrupted as stop:
        verb = "train" if strategy.describe(devices)["workers"] == 1 else "launch"
        where = "before the first step" if outcome.steps is None else f"at step {outcome.steps}"
        print(f"interrupted ({stop}) {where}; to go on: make {verb} RUN={run_dir}")
        return stop.exit_code
    except workers.PeerGone as fault:
        print(f"trellis: {fault}", file=sys.stderr)
        return ExitCode.PEER_GONE
    except faults.NotFinite as fault:
        print(f"trellis: training stopped: {fault}", file=sys.stderr)
        return ExitCode.FAILED
    except faults.NotSaved as fault:
        print(
            f"trellis: training stopped: {fault}; to go on, once that is put right: make train RUN={run_dir}",
            file=sys.stderr,
        )
        return ExitCode.FAILED
    best = recorder.summary["headline"]["value"]
    print(
        f"{cfg.name}: {headline} {'not evaluated' if best is None else f'{best:.4f}'} after {outcome.steps} steps; "
        f"{run_dir}; MLflow run {read_run_id(run_dir)} (make ui)"
    )
    return 0


def _follow(cfg: Config, own: Path) -> int:
    """Trains as a worker other than the chief: computes and saves with it, keeps a log of its own, records nothing."""
    run_dir, task = Path(cfg.run_dir), tasks.load(config.chosen_dataset(cfg).task)
    with (
        process.prepared(cfg, own),
        (own / "train.log").open("a", buffering=1) as log,
        contextlib.redirect_stdout(log),
    ):
        data = store.obtain(cfg, task)
        from pipelines.training import (  # TensorFlow: 10 s.
            determinism,
            experiment,
            faults,
            parameters,
            strategy,
            workers,
        )

        determinism.pin_threads(cfg.threads)
        params = parameters.build(cfg, task, data)
        devices = strategy.build(params.runtime)
        strategy.refuse_uneven(params, devices, data.splits["validation"].examples)
        try:
            with workers.interruption(devices) as signals:
                experiment.train(
                    params,
                    own,
                    experiment.Outcome(),
                    devices=devices,
                    exact=cfg.determinism,
                    record_flight=cfg.flight,
                    report=lambda step, values: None,
                    signals=signals,
                    evaluated_steps=frozenset(
                        _recorded_figures(run_dir, params.trainer.best_checkpoint_eval_metric)
                    ),
                    chief_dir=run_dir,
                )
        except Interrupted as stop:
            return stop.exit_code
        except (faults.NotFinite, faults.NotSaved, workers.PeerGone) as fault:
            print(f"trellis: {fault}", file=sys.stderr)
            return ExitCode.PEER_GONE if isinstance(fault, workers.PeerGone) else ExitCode.FAILED
        finally:
            shutil.rmtree(own / "checkpoints", ignore_errors=True)
    return 0


@contextlib.contextmanager
def _recording(cfg: Config, sender: Any, signals: Interruption) -> Iterator[Recorder]:
    """A run's record that is begun and ended whole: a signal waits until it is."""
    signals.hold("the run's record is begun")
    with session.recorded(cfg, parent=cfg.parent, sender=sender) as recorder:
        signals.release()
        yield recorder


def _summarise(recorder: Any, outcome: Any, headline: str, seconds: dict[str, float]) -> None:
    recorded = _recorded_figures(recorder.run_dir, headline)
    value = outcome.metrics.get(headline, recorded[max(recorded)] if recorded else None)
    metrics = outcome.metrics or recorder.summary.get("metrics", {})
    recorder.summary.update(
        steps=recorder.summary.get("steps", 0) if outcome.steps is None else outcome.steps,
        metrics=metrics,
        headline={"metric": headline, "value": value},
        steps_per_second=round(outcome.steps_per_second, 3),
        weights_sha256=outcome.weights_sha256,
        trainable_sha256=outcome.trainable_sha256,
        seconds={**seconds, **{name: round(value, 2) for name, value in outcome.seconds.items()}},
    )
    if (recorder.run_dir / "flight.jsonl").exists():
        recorder.file("flight.jsonl")
    for which, (path, step) in outcome.checkpoints.items():
        recorder.checkpoint(which, path, step)


def _recorded_figures(run_dir: Path, headline: str) -> dict[int, float]:
    return dict(journal.metrics(run_dir).get(f"validation/{headline}", {}))


def _chosen(cfg: Config, params: Any, data: Manifest) -> dict[str, Any]:
    optimizer, trainer = params.trainer.optimizer_config, params.trainer
    return {
        "experiment": cfg.name,
        "garden": cfg.garden,
        "dataset": data.dataset,
        "fingerprint": data.fingerprint,
        "seed": cfg.seed,
        "determinism": cfg.determinism,
        "train_steps": trainer.train_steps,
        "batch_size": params.task.train_data.global_batch_size,
        "input_size": getattr(params.task.model, "input_size", None),
        "optimizer": optimizer.optimizer.type,
        "learning_rate": yaml.safe_dump(
            optimizer.learning_rate.get().as_dict(), default_flow_style=True
        ).strip(),
        "precision": params.runtime.mixed_precision_dtype,
    }


def _recorded(cfg: Config) -> Config:
    """The configuration of a recorded run, to go on with it."""
    if cfg.garden:
        raise UsageError(
            "run: goes on with a recorded run, which has its experiment; leave EXP out"
        )
    record = runs.find(cfg.run, cfg)
    run_dir = runs.directory(record, cfg.run, f"to make it again: make reproduce RUN={cfg.run}")
    recorded = config.from_yaml(record.texts["config.yaml"])
    recorded.run_dir = str(run_dir)
    return continuation.resumed(cfg, recorded)


def _warn_of_another_class(run_dir: Path) -> None:
    """Says where a run is resumed on a machine that need not give the bits which the first would have given."""
    file = run_dir / "environment.json"
    if file.exists():
        machine = classes.here({"environment.json": file.read_text()})
        if machine.differing:
            print("resumed on another machine than before:", "\n".join(machine.lines()), flush=True)


main = config.composed(run)
