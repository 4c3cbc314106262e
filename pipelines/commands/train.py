"""Trains one experiment on its data, evaluates and records it.    make train EXP=retinanet

Builds missing data first. The same run directory again resumes where the run stopped: RUN=<run directory or MLflow's id>, or the
first command once more with run_dir=<directory>.
"""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines import assembly, config
from pipelines.assembly import Built
from pipelines.cluster import membership
from pipelines.config import Config
from pipelines.reproduction import classes, levels
from pipelines.system import kernels
from pipelines.system.processes import ROOT
from pipelines.system.signals import Interrupted, Interruption
from pipelines.tracking import continuation, environment, journal, session
from pipelines.tracking.record import read_run_id, read_summary
from pipelines.tracking.recording import Recorder
from pipelines.training import process
from pipelines.usage import ExitCode


class Laps:
    """How many seconds each part of the way to the first step takes."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self.seconds: dict[str, float] = {}

    def end(self, part: str) -> None:
        """Notes that a part has ended, and that the next begins."""
        now = time.monotonic()
        self.seconds[part] = round(now - self._since, 2)
        self._since = now


def main(overrides: Sequence[str]) -> int:
    """Trains what the overrides say."""
    cfg = config.compose(overrides)
    assembly.refuse_other_task(overrides, cfg)
    return run(cfg)


def run(cfg: Config) -> int:
    """Returns 0, 128 plus the number of the signal that interrupted the run, or 75 when another worker has gone."""
    laps = Laps()
    environment.at_start()  # Building data may take hours, in which somebody edits.
    cfg = assembly.to_train(cfg)
    run_dir = Path(cfg.run_dir)
    number = _number_as_follower(cfg)
    if number is None:
        with _without_empty(run_dir):
            return _train(cfg, run_dir, None, laps)
    own = run_dir / "workers" / str(number)
    with _logged(own):
        return _train(cfg, own, run_dir, laps)


def _number_as_follower(cfg: Config) -> int | None:
    """The number of this worker where another is the chief."""
    if cfg.runtime.get("distribution_strategy") != "multi_worker_mirrored":
        return None
    member = membership.join(os.environ)
    return None if member.is_chief else member.index


def _train(cfg: Config, folder: Path, chief_dir: Path | None, laps: Laps) -> int:
    """Trains in `folder`.

    Args:
        chief_dir: run directory of the chief, where this is another worker: it computes and saves with the chief, keeps its
            own log and records nothing.
    """
    prepared = assembly.prepared(cfg)
    if chief_dir is None:
        continuation.refuse_other_data(folder, cfg, prepared.data.fingerprint)
    laps.end("data")
    with process.prepared(cfg, folder):
        if chief_dir is None:
            _warn_of_another_class(folder)
        # Imports MLflow while this process imports TensorFlow.
        sender = session.start_sender(cfg) if chief_dir is None else None
        built = assembly.built(prepared)
        if chief_dir is None:
            continuation.refuse_other_devices(folder, cfg, built.determinism_class)
        return _train_built(built, folder, chief_dir, sender, laps)


def _train_built(
    built: Built, folder: Path, chief_dir: Path | None, sender: Any, laps: Laps
) -> int:
    # TensorFlow, imported by now.
    from pipelines.training import faults, loop, parameters, workers

    cfg = built.cfg
    warning = parameters.few_steps(built.params, built.data.splits["train"].examples)
    if warning:
        print(f"warning: {warning}")
    starting = assembly.starting(built, folder)
    outcome = loop.Outcome()
    try:
        with (
            workers.interruption(built.devices) as signals,
            _reporting(built, sender, signals, outcome, laps) as report,
        ):
            plan = loop.Plan(
                built.params,
                folder,
                built.devices,
                exact=cfg.determinism,
                record_flight=cfg.flight,
                report=report,
                signals=signals,
                evaluated_steps=frozenset(_recorded_figures(built)),
                chief_dir=chief_dir,
                starting=starting,
                release=parameters.release_step(built.params, cfg.frozen),
            )
            loop.train(plan, outcome)
    except Interrupted as stop:
        verb = "train" if built.determinism_class["workers"] == 1 else "launch"
        resume = f"to resume: make {verb} RUN={cfg.run_dir}"
        print(f"interrupted ({stop}) {_reached(outcome)}; {resume}")
        return stop.exit_code
    except workers.PeerGone as fault:
        print(f"trellis: {fault}", file=sys.stderr)
        return ExitCode.PEER_GONE
    except faults.NotFinite as fault:
        print(f"trellis: training stopped: {fault}", file=sys.stderr)
        return ExitCode.FAILED
    except faults.NotSaved as fault:
        resume = f"to resume, once that is repaired: make train RUN={cfg.run_dir}"
        print(f"trellis: training stopped: {fault}; {resume}", file=sys.stderr)
        return ExitCode.FAILED
    if chief_dir is None:
        print(_finished(built))
    return 0


@contextlib.contextmanager
def _reporting(
    built: Built, sender: Any, signals: Interruption, outcome: Any, laps: Laps
) -> Iterator[Callable[[int, Any], None]]:
    """What a training reports to: its record, begun and ended whole, for which a signal waits; for a follower nothing.

    Args:
        sender: what `session.start_sender` returned; None for a follower.
    """
    if sender is None:
        yield lambda step, values: None
        return
    cfg = built.cfg
    run_dir = Path(cfg.run_dir)
    signals.hold("the run's record is begun")
    with session.recorded(cfg, parent=cfg.parent, sender=sender) as recorder:
        signals.release()
        _describe(recorder, built)
        steps = built.params.trainer.train_steps
        print(
            f"training {cfg.name} on {built.data.dataset}: {steps} steps; run directory {run_dir}"
        )
        print(_computing(built))
        laps.end("setup")
        try:
            yield recorder
        finally:
            signals.hold("the run is recorded")
            _summarise(recorder, built, outcome, laps.seconds)


def _describe(recorder: Recorder, built: Built) -> None:
    """Records what is trained, on what and where."""
    cfg, data, params = built.cfg, built.data, built.params
    manifest = data.to_json()
    recorder.file("params.yaml", yaml.safe_dump(params.as_dict(), sort_keys=False))
    recorder.file("manifest.json", manifest)
    recorder.dataset(
        data.dataset,
        data.fingerprint,
        str(data.directory),
        json.loads(manifest),
    )
    recorder.parameters(_chosen(built))
    # A tag, not a parameter: MLflow keeps the first of a parameter, and this may change with determinism=off.
    recorder.tags({"strategy": params.runtime.distribution_strategy})
    recorder.environment(determinism_class=dict(built.determinism_class))
    recorder.summary.update(experiment=cfg.name, run_dir=cfg.run_dir, seed=cfg.seed)


def _summarise(recorder: Recorder, built: Built, outcome: Any, seconds: dict[str, float]) -> None:
    """Records what a training has reached."""
    headline = built.params.trainer.best_checkpoint_eval_metric
    earlier = _recorded_figures(built)
    value = outcome.metrics.get(headline, earlier[max(earlier)] if earlier else None)
    summary = recorder.summary
    spent = {name: round(part, 2) for name, part in outcome.seconds.items()}
    summary.update(
        steps=summary.get("steps", 0) if outcome.steps is None else outcome.steps,
        metrics=outcome.metrics or summary.get("metrics", {}),
        headline={"metric": headline, "value": value},
        steps_per_second=round(outcome.steps_per_second, 3),
        weights_sha256=outcome.weights_sha256,
        trainable_sha256=outcome.trainable_sha256,
        seconds={**seconds, **spent},
    )
    if outcome.starting:
        counts = {
            word: len(names) for word, names in outcome.starting.items() if word != "averaged"
        }
        summary.update(
            starting_weights={"init": built.cfg.init, "sha256": built.cfg.init_sha256, **counts}
        )
        recorder.file("starting_weights.json", json.dumps(outcome.starting, indent=1))
    if (recorder.run_dir / "flight.jsonl").exists():
        recorder.file("flight.jsonl")
    for which, (path, step) in outcome.checkpoints.items():
        recorder.checkpoint(which, path, step)
    runs_dir = Path(built.cfg.runs_dir)
    level = levels.of_directory(recorder.run_dir, ROOT, runs_dir, summary)
    summary["level"] = level.recorded()
    recorder.tags({"level": level.name})


def _recorded_figures(built: Built) -> dict[int, float]:
    headline = built.params.trainer.best_checkpoint_eval_metric
    return dict(journal.metrics(Path(built.cfg.run_dir)).get(f"validation/{headline}", {}))


def _computing(built: Built) -> str:
    """What computes: part of what the bits of the result depend on."""
    from pipelines.training.exact import determinism  # TensorFlow, imported by now.

    described = determinism.describe(built.cfg)
    machine, threads = described["processor"], built.cfg.threads
    return (
        f"on {', '.join(described['devices'])}: {machine['instruction_set']}, "
        f"oneDNN {kernels.onednn_in_words()}, {threads.inter_op} operations at a time, "
        f"{threads.intra_op} threads each"
    )


def _reached(outcome: Any) -> str:
    return "before the first step" if outcome.steps is None else f"at step {outcome.steps}"


def _finished(built: Built) -> str:
    run_dir = Path(built.cfg.run_dir)
    summary = read_summary(run_dir)
    headline, value = summary["headline"]["metric"], summary["headline"]["value"]
    shown = "not evaluated" if value is None else f"{value:.4f}"
    run_id = read_run_id(run_dir)
    return (
        f"{built.cfg.name}: {headline} {shown} after {summary['steps']} steps; "
        f"{run_dir}; MLflow run {run_id} (make ui)\n{summary['level']['line']}"
    )


@contextlib.contextmanager
def _logged(own: Path) -> Iterator[None]:
    """Sends what a follower prints to its own log; its checkpoints, copies of the chief's, go at the end."""
    own.mkdir(parents=True, exist_ok=True)
    with (own / "train.log").open("a", buffering=1) as log, contextlib.redirect_stdout(log):
        try:
            yield
        finally:
            shutil.rmtree(own / "checkpoints", ignore_errors=True)


@contextlib.contextmanager
def _without_empty(folder: Path) -> Iterator[None]:
    """Removes a folder at the end if it is empty: nothing has been recorded."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _chosen(built: Built) -> dict[str, Any]:
    """The dozen settings that runs are compared by."""
    cfg, data, params = built.cfg, built.data, built.params
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


def _warn_of_another_class(run_dir: Path) -> None:
    """Says where a run is resumed on a machine that need not give the bits which the first would have given."""
    file = run_dir / "environment.json"
    if file.exists():
        machine = classes.here({"environment.json": file.read_text()})
        if machine.differing:
            print("resumed in another class than before:", "\n".join(machine.lines()), flush=True)
