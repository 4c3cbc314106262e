"""Evaluates a recorded run's best checkpoint again.    make evaluate RUN=<run id or directory>

Rebuilt from the run's own artifacts. Another data set (dataset=<name>) or runtime may be given.
"""

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import tasks
from pipelines import config
from pipelines.config import Config
from pipelines.data import store
from pipelines.tracking import runs
from pipelines.tracking.record import write_summary
from pipelines.training import process


def run(cfg: Config) -> int:
    """Prints the metrics and writes `evaluation/summary.json` in the run directory."""
    started = time.monotonic()
    record = runs.find(cfg.run, cfg)
    recorded = _here(cfg, record.texts["config.yaml"])
    dataset = config.chosen_dataset(recorded)
    task = tasks.load(dataset.task)
    data = store.obtain(recorded, task)
    run_dir = record.run_dir or config.absolute(recorded.run_dir)
    folder = Path(run_dir, "evaluation")
    with process.prepared(recorded, folder):
        from pipelines.training import (  # TensorFlow: 10 s.
            checkpoints,
            determinism,
            experiment,
            parameters,
            strategy,
        )

        determinism.pin_threads(recorded.threads)
        params = parameters.build(recorded, task, data)
        devices = strategy.build(params.runtime, cfg.logical_cpus)
        strategy.refuse_uneven(params, devices, data.splits["validation"].examples)
        checkpoint = checkpoints.best(runs.checkpoints(record, tempfile.gettempdir()), print)
        steps = params.trainer.validation_steps
        print(f"evaluating {checkpoint} on {data.dataset}: {steps} steps")
        outcome = experiment.evaluate(
            params,
            checkpoint,
            folder,
            devices=devices,
            exact=recorded.determinism,
        )
    headline = params.trainer.best_checkpoint_eval_metric
    setup = time.monotonic() - started - outcome.seconds["evaluate"]
    write_summary(
        folder,
        {
            "experiment": recorded.name,
            "dataset": data.dataset,
            "fingerprint": data.fingerprint,
            "checkpoint": checkpoint,
            "mlflow_run_id": record.run_id,
            "headline": {"metric": headline, "value": outcome.metrics.get(headline)},
            "seconds": {"setup": round(setup, 2), **outcome.seconds},
            **_results(outcome),
        },
    )
    for name, value in sorted(outcome.metrics.items()):
        print(f"  {name:<32} {value:.4f}")
    value = outcome.metrics.get(headline, math.nan)
    result = f"{headline} {value:.4f} at step {outcome.steps}"
    print(f"{recorded.name}: {result}; {folder}")
    return 0


def _here(cfg: Config, text: str) -> Config:
    """The recorded configuration, with the data and devices that this command was given."""
    recorded = config.from_yaml(text)
    recorded.runtime = {**recorded.runtime, **cfg.runtime}
    recorded.data_dir = cfg.data_dir
    recorded.dataset = cfg.dataset or recorded.dataset
    return recorded


def _results(outcome: Any) -> dict[str, Any]:
    return {
        "status": "finished",
        "steps": outcome.steps,
        "metrics": outcome.metrics,
        "weights_sha256": outcome.weights_sha256,
        "trainable_sha256": outcome.trainable_sha256,
    }


main = config.composed(run)
