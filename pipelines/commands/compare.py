"""Compares two recorded runs: config, data, code, environment, results.    make compare RUN=<run> ARGS="against=<run>" """

from pipelines import config
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
    before, after = runs.find(cfg.run, cfg), runs.find(cfg.against, cfg)
    found = comparison.compare(before.texts, after.texts, (before.metrics, after.metrics))
    print("\n".join(found.lines()))
    return ExitCode.DONE if found.verdict == comparison.IDENTICAL else ExitCode.FAILED


main = config.composed(run)
