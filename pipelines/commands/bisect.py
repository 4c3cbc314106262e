"""Finds the first step at which two runs part, and what parted first.    make bisect RUN=<run> ARGS="against=<run>" """

from collections.abc import Mapping

from pipelines import config
from pipelines.config import Config
from pipelines.reproduction import bisection, classes, inputs
from pipelines.tracking import runs
from pipelines.usage import ExitCode, UsageError


def run(cfg: Config) -> int:
    """Prints classes and inputs, the step and the cause; returns 0 when the runs agree in every step that both have, else 1."""
    if not cfg.against:
        raise UsageError(
            "against: name the run to compare with, as in: make bisect RUN=<run> ARGS=against=<run>"
        )
    before = _texts(cfg, cfg.run)
    after = _texts(cfg, cfg.against)
    compared = classes.between(before, after)
    print("\n".join(compared.lines()))
    differing = inputs.differing(before, after)
    print("\n".join(inputs.lines(differing)))
    try:
        parting = bisection.bisect(before["flight.jsonl"], after["flight.jsonl"])
    except ValueError as error:
        raise UsageError(f"run: {error}") from None
    if parting is None:
        print("the runs agree in every step that both have")
        return ExitCode.DONE
    same_data = not differing["data"]
    print("\n".join(parting.lines(compared, same_data)))
    return ExitCode.FAILED


def _texts(cfg: Config, name: str | None) -> Mapping[str, str]:
    texts = runs.find(name, cfg).texts
    if "flight.jsonl" not in texts:
        raise UsageError(
            f"run: {name} has no flight record; it was made with flight=off, or by an earlier version"
        )
    return texts


main = config.composed(run)
