"""Finds where two runs part, from their flight records: at which step, and in what."""

import json
from dataclasses import dataclass

from pipelines.reproduction.classes import Classes

# In the order of cause and effect inside one step; a step's weights come after it.
STREAMS = {
    "order": "the order of the data",
    "inputs": "the inputs after augmentation",
    "loss": "the arithmetic",
    "gradient": "the arithmetic",
    "weights": "the arithmetic",  # of records from before `variables`: over the trained ones alone
    "variables": "the arithmetic",
}
INITIAL = "the initial weights"


@dataclass(frozen=True)
class Parting:
    """The first step at which two runs differ, and what differed first; step 0 is before training."""

    step: int
    cause: str
    firsts: dict[
        str, tuple[int, object, object]
    ]  # of each stream that differs: first step, and its two values

    def lines(self, classes: Classes | None = None) -> list[str]:
        """The parting as readable lines; another determinism class explains what was computed otherwise."""
        table = [
            f"  {stream:<9} first at step {step}: {one} -> {other}"
            for stream, (step, one, other) in self.firsts.items()
        ]
        computed = (
            self.cause != STREAMS["order"]
        )  # An order is drawn with integers, alike everywhere.
        reason = (
            f" (class: {classes.reason()})" if computed and classes and not classes.promised else ""
        )
        return [f"the runs part at step {self.step}, first in {self.cause}{reason}", *table]


def bisect(before: str, after: str) -> Parting | None:
    """Where two flight records part; None where they agree in every step that both have.

    Raises:
        ValueError: they have no step in common.
    """
    one, other = _by_step(before), _by_step(after)
    common = sorted(set(one) & set(other))
    if not common:
        raise ValueError("the two flight records have no step in common")
    firsts: dict[str, tuple[int, object, object]] = {}
    for step in common:
        for stream in STREAMS:
            values = one[step].get(stream), other[step].get(stream)
            if None not in values and json.dumps(values[0]) != json.dumps(
                values[1]
            ):  # NaN equals NaN as text
                firsts.setdefault(stream, (step, *values))
    if not firsts:
        return None
    order = list(STREAMS)
    stream = min(firsts, key=lambda name: (firsts[name][0], order.index(name)))
    step = firsts[stream][0]
    return Parting(step, INITIAL if step == 0 else STREAMS[stream], firsts)


def _by_step(text: str) -> dict[int, dict]:
    records = (json.loads(line) for line in text.splitlines() if line.endswith("}"))
    return {record["step"]: record for record in records}
