"""Finds the first step at which two runs part, and what parted first.    make bisect RUN=<run> ARGS="against=<run>" """

from pipelines import config
from pipelines.config import Config
from pipelines.reproduction import bisection, classes
from pipelines.tracking import runs
from pipelines.usage import ExitCode, UsageError


def run(cfg: Config) -> int:
    """Prints the classes, the step and the cause; returns 0 when the runs agree in every step that both have, else 1."""
    if not cfg.against:
        raise UsageError(
            "against: name the run to compare with, as in: make bisect RUN=<run> ARGS=against=<run>"
        )
    one, other = (runs.find(name, cfg).texts for name in (cfg.run, cfg.against))
    for name, texts in ((cfg.run, one), (cfg.against, other)):
        if "flight.jsonl" not in texts:
            raise UsageError(
                f"run: {name} has no flight record; it was made with flight=off, or by an earlier version"
            )
    found = classes.between(one, other)
    print("\n".join(found.lines()))
    try:
        parting = bisection.bisect(one["flight.jsonl"], other["flight.jsonl"])
    except ValueError as error:
        raise UsageError(f"run: {error}") from None
    print(
        "\n".join(parting.lines(found))
        if parting
        else "the runs agree in every step that both have"
    )
    return ExitCode.FAILED if parting else ExitCode.DONE


main = config.composed(run)
