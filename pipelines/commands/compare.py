"""Compares two recorded runs: config, data, code, environment, results.    make compare RUN=<run> ARGS="against=<run>" """

import json
from pathlib import Path
from typing import Any

from pipelines import assembly, config, outcomes
from pipelines.config import Config
from pipelines.reproduction import comparison
from pipelines.tracking import runs
from pipelines.tracking.record import RunRecord
from pipelines.usage import ExitCode, UsageError


def run(cfg: Config) -> int:
    """Prints what differs; returns 0 when the results are identical, else 1."""
    if not cfg.against:
        raise UsageError(
            "against: name the run to compare with, as in: make compare RUN=<run> ARGS=against=<run>"
        )
    before = runs.find(cfg.run, cfg)
    after = runs.find(cfg.against, cfg)
    figures = (before.metrics, after.metrics)
    _, headline = _headline(before)
    images = assembly.images_shared_out(
        before.texts.get("manifest.json", ""),
        headline.get("metric"),
    )
    compared = comparison.compare(
        before.texts,
        after.texts,
        figures,
        images=images,
        pair=outcomes.pair_of_runs([_headline(before), _headline(after)]),
    )
    print("\n".join(compared.lines()))
    identical = compared.verdict == comparison.IDENTICAL
    return ExitCode.DONE if identical else ExitCode.FAILED


def _headline(record: RunRecord) -> tuple[Path | None, dict[str, Any]]:
    """Where a run lies, and its headline figure."""
    summary = json.loads(record.texts.get("summary.json", "{}"))
    return record.run_dir, summary.get("headline", {})


main = config.composed(run)
