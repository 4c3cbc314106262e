"""Validates an experiment on its data before anything expensive starts.    make check EXP=retinanet DATA=coco

Builds the Model Garden configuration strictly: unknown keys, wrong leaf types, combinations that cannot train.
`trellis check --determinism EXP` also trains twice, a few steps each, kills and resumes one of the two, and compares: equal runs must be equal.
"""

import json
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines import assembly, config
from pipelines.config import Config
from pipelines.data.manifest import Manifest
from pipelines.reproduction import bisection, levels
from pipelines.training import rehearsal
from pipelines.usage import ExitCode

PROOF_STEPS, KILLED_AT = 6, 4
FLAG = "--determinism"


def main(overrides: Sequence[str]) -> int:
    """Takes the flag, and an experiment named without `experiment=`."""
    if FLAG not in overrides:
        return run(config.compose(overrides))
    named = [_with_key(word) for word in overrides if word != FLAG]
    cfg = config.compose(named)
    return run(cfg) or prove(cfg)


def _with_key(word: str) -> str:
    return word if "=" in word or word.startswith("@") else f"experiment={word}"


def run(cfg: Config) -> int:
    """Prints what the run would be; raises `UsageError` with the first thing to change."""
    dataset, task, data = assembly.as_built(cfg)
    params = assembly.resolved(cfg, task, data)
    print(
        f"{cfg.name}: {cfg.garden} on {dataset.name}, "
        f"runtime {params.runtime.distribution_strategy}"
    )
    if data is None:
        print(f"the data are not built yet, so sizes are unchecked: make data DATA={dataset.name}")
    else:
        _print_sizes(data, params)
    cfg = assembly.with_starting_weights(cfg)
    weights = f"{cfg.init} ({cfg.init_sha256[:12]})" if cfg.init_sha256 else "random"
    print(f"starting weights: {params.task.init_checkpoint or weights}")
    print(f"headline metric: {params.trainer.best_checkpoint_eval_metric}\nok")
    return 0


def _print_sizes(data: Manifest, params: Any) -> None:
    sizes = [f"{split.examples} {name}" for name, split in data.splits.items()]
    classes = len(data.labels)
    fingerprint = data.fingerprint[:12]
    print(f"data: {', '.join(sizes)} examples, {classes} classes ({fingerprint})")
    batch = params.task.train_data.global_batch_size
    interval = params.trainer.validation_interval
    print(
        f"{params.trainer.train_steps} steps at batch {batch}, an evaluation every {interval} steps"
    )
    from pipelines.training import parameters  # TensorFlow, imported by now.

    warning = parameters.few_steps(params, data.splits["train"].examples)
    if warning:
        print(f"warning: {warning}")


def prove(cfg: Config) -> int:
    """Trains a few steps twice, the second time killed and resumed; returns 0 when every step is equal in every bit."""
    cfg = config.anchored(cfg)
    assembly.prepared(cfg)
    with tempfile.TemporaryDirectory() as folder:
        alone = _flight_record(cfg, Path(folder), "alone", [signal.SIGTERM])
        killed = _flight_record(
            cfg,
            Path(folder),
            "killed",
            [signal.SIGKILL, signal.SIGTERM],
        )
        recorded = {}
        for file in ("config.yaml", "environment.json"):
            recorded[file] = Path(folder, "alone", file).read_text()
    compared = [
        _print_last("left alone", alone),
        _print_last(f"killed after step {KILLED_AT} and resumed", killed),
    ]
    # Each training has looked, before its first step, and refuses what it finds.
    if cfg.determinism:
        print("traced graphs: no operation draws what the seed does not fix")
    parting = bisection.bisect(alone, killed)
    print("\n".join(parting.lines()) if parting else "equal in every bit")
    if parting or not all(compared):
        return ExitCode.FAILED
    levels.witness(Path(cfg.runs_dir), "check", recorded)
    return ExitCode.DONE


def _flight_record(cfg: Config, folder: Path, name: str, stops: Sequence[signal.Signals]) -> str:
    """The flight record of a training that is stopped by these signals, and resumed between them."""
    short = {"steps_per_loop": 1, "summary_interval": 1, "checkpoint_interval": 2}
    run_dir = folder / name
    file = rehearsal.recipe(replace(cfg, flight=True), run_dir, **short)
    for how in stops:
        rehearsal.until(KILLED_AT if how == signal.SIGKILL else PROOF_STEPS, file, how)
    return (run_dir / "flight.jsonl").read_text()


def _print_last(name: str, record: str) -> bool:
    """Says what the last step of the proof computed; whether there is a digest to compare."""
    steps = [json.loads(line) for line in record.splitlines()]
    last: dict[str, Any] = {}
    for step in steps:
        if step["step"] == PROOF_STEPS:
            last = step
    weights = last.get("variables", "none")[:16]
    print(f"{PROOF_STEPS} steps, {name}: loss {last.get('loss')}, weights {weights}")
    return "variables" in last
