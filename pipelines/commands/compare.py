"""Compares two recorded runs: config, data, code, environment, results.    make compare RUN=<run> ARGS="against=<run>" """

import json

from pipelines import assembly, config
from pipelines.config import Config
from pipelines.reproduction import comparison
from pipelines.tracking import runs
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
    headline = json.loads(before.texts.get("summary.json", "{}")).get("headline", {})
    images = assembly.images_shared_out(
        before.texts.get("manifest.json", ""),
        headline.get("metric"),
    )
    compared = comparison.compare(
        before.texts,
        after.texts,
        figures,
        images=images,
    )
    print("\n".join(compared.lines()))
    identical = compared.verdict == comparison.IDENTICAL
    return ExitCode.DONE if identical else ExitCode.FAILED


main = config.composed(run)
