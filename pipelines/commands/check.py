"""Validates an experiment on its data before anything expensive starts.    make check EXP=retinanet DATA=coco

Builds the Model Garden configuration strictly: unknown keys, wrong leaf types, combinations that cannot train.
`trellis check --determinism EXP` proves besides, by two short trainings, one of them killed half-way, that equal runs are equal.
"""

import json
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import tasks
from pipelines import config
from pipelines.config import Config, Dataset
from pipelines.data import manifest, store
from pipelines.data.manifest import Manifest
from pipelines.reproduction import bisection
from pipelines.system import processes
from pipelines.usage import ExitCode, UsageError

PROOF_STEPS, KILLED_AT = 6, 4
FLAG = "--determinism"


def main(overrides: Sequence[str]) -> int:
    """Takes the flag, and an experiment named without `experiment=`."""
    if FLAG not in overrides:
        return run(config.compose(overrides))
    named = [
        word if "=" in word or word.startswith("@") else f"experiment={word}"
        for word in overrides
        if word != FLAG
    ]
    cfg = config.compose(named)
    return run(cfg) or prove(cfg)


def run(cfg: Config) -> int:
    """Prints what the run would be; raises `UsageError` with the first thing to change."""
    dataset, task, data = prepared(cfg)
    from pipelines.training import (
        parameters,  # TensorFlow, only once the spelling is right.
    )

    params = parameters.build(cfg, task, data)
    trainer, batch = params.trainer, params.task.train_data.global_batch_size
    print(
        f"{cfg.name}: {cfg.garden} on {dataset.name}, runtime {params.runtime.distribution_strategy}"
    )
    if data is None:
        print(f"the data are not built yet, so sizes are unchecked: make data DATA={dataset.name}")
    else:
        sizes = ", ".join(f"{split.examples} {name}" for name, split in data.splits.items())
        print(f"data: {sizes} examples, {len(data.labels)} classes ({data.fingerprint[:12]})")
        print(
            f"{trainer.train_steps} steps at batch {batch}, an evaluation every {trainer.validation_interval} steps"
        )
    print(f"headline metric: {trainer.best_checkpoint_eval_metric}\nok")
    return 0


def prepared(cfg: Config) -> tuple[Dataset, ModuleType, Manifest | None]:
    """The data set, its task, and the data as built, if they are: all that can be said without TensorFlow."""
    dataset = config.chosen_dataset(cfg)
    task = tasks.load(dataset.task)
    return dataset, task, manifest.find(cfg.data_dir, dataset, task.VERSION)


def prove(cfg: Config) -> int:
    """Trains a few steps twice, the second time killed and resumed; returns 0 when every step is equal in every bit."""
    cfg = config.anchored(cfg)
    store.obtain(cfg, tasks.load(config.chosen_dataset(cfg).task))
    # The recipe's own schedule, so that the learning rate is not zero; only left early.
    trainer = {**cfg.trainer, "steps_per_loop": 1, "summary_interval": 1, "checkpoint_interval": 2}
    with tempfile.TemporaryDirectory() as folder:
        records = []
        for name, stops in (
            ("alone", [signal.SIGTERM]),
            ("killed", [signal.SIGKILL, signal.SIGTERM]),
        ):
            run_dir = Path(folder, name)
            file = Path(folder, f"{name}.yaml")
            file.write_text(
                config.to_yaml(
                    replace(
                        cfg, runs_dir=folder, run_dir=str(run_dir), trainer=trainer, flight=True
                    )
                )
            )
            for how in stops:
                _train_until(KILLED_AT if how == signal.SIGKILL else PROOF_STEPS, file, how)
            records.append((run_dir / "flight.jsonl").read_text())
    lines = [
        {step["step"]: step for step in map(json.loads, record.splitlines())}.get(PROOF_STEPS, {})
        for record in records
    ]
    for name, line in zip(
        ("left alone", f"killed after step {KILLED_AT} and resumed"), lines, strict=True
    ):
        print(
            f"{PROOF_STEPS} steps, {name}: loss {line.get('loss')}, weights {line.get('variables', 'none')[:16]}"
        )
    parting = bisection.bisect(*records)
    print("\n".join(parting.lines()) if parting else "equal in every bit")
    compared = all("variables" in line for line in lines)
    return ExitCode.FAILED if parting or not compared else ExitCode.DONE


def _train_until(step: int, file: Path, how: signal.Signals) -> None:
    """Trains in a process of its own that is sent a signal once it has made so many steps."""
    command, environment = processes.this_tool("train", f"@{file}")
    output: dict[str, Any] = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    printed = ""
    with subprocess.Popen(command, env=environment, **output) as child:
        for line in child.stdout:  # type: ignore[union-attr]
            printed += line
            if line.startswith(f"step {step}/"):
                child.send_signal(how)
                break
        rest, _ = child.communicate()
    if f"step {step}/" not in printed:
        raise UsageError(
            f"the proof could not be made, a training of {step} steps ended before:\n{printed}{rest}"
        )
