"""Evaluates a recorded run's best checkpoint again.    make evaluate RUN=<run id or directory>

Rebuilt from the run's own artifacts. Another data set (dataset=<name>) or runtime may be given.
"""

import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines import assembly, config
from pipelines.config import Config
from pipelines.tracking import runs
from pipelines.tracking.record import write_summary
from pipelines.training import process


def run(cfg: Config) -> int:
    """Prints the metrics and writes `evaluation/summary.json` in the run directory."""
    started = time.monotonic()
    record, recorded = assembly.recorded(cfg)
    recorded = _here(cfg, recorded)
    prepared = assembly.prepared(recorded)
    data = prepared.data
    run_dir = record.run_dir or config.absolute(recorded.run_dir)
    folder = Path(run_dir, "evaluation")
    with process.prepared(recorded, folder):
        from pipelines.training import checkpoints, evaluation  # TensorFlow: 10 s.

        built = assembly.built(prepared)
        params = built.params
        checkpoint = checkpoints.best(runs.checkpoints(record, tempfile.gettempdir()), print)
        steps = params.trainer.validation_steps
        print(f"evaluating {checkpoint} on {data.dataset}: {steps} steps")
        outcome = evaluation.evaluate(
            params,
            evaluation.of_checkpoint(checkpoint),
            folder,
            devices=built.devices,
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


def _here(cfg: Config, recorded: Config) -> Config:
    """The recorded configuration, with the data and devices that this command was given."""
    return replace(
        recorded,
        runtime={**recorded.runtime, **cfg.runtime},
        data_dir=cfg.data_dir,
        dataset=cfg.dataset or recorded.dataset,
        logical_cpus=cfg.logical_cpus,
    )


def _results(outcome: Any) -> dict[str, Any]:
    return {
        "status": "finished",
        "steps": outcome.steps,
        "metrics": outcome.metrics,
        "weights_sha256": outcome.weights_sha256,
        "trainable_sha256": outcome.trainable_sha256,
    }


main = config.composed(run)
