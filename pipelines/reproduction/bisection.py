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
    "weights": "the arithmetic",  # the trained ones alone, in records from before `variables`
    "variables": "the arithmetic",
}
INITIAL = "the initial weights"
RECORDS = "the records"  # where the data are not the same


@dataclass(frozen=True)
class Parting:
    """The first step at which two runs differ, and what differed first; step 0 is before training."""

    step: int
    cause: str
    # By stream that differs: the first step at which it does, and its two values.
    firsts: dict[str, tuple[int, object, object]]

    def lines(self, classes: Classes | None = None, same_data: bool = True) -> list[str]:
        """The parting as readable lines; another determinism class explains what was computed otherwise."""
        reason = ""
        # An order is drawn with integers, alike everywhere.
        computed = self.cause != STREAMS["order"]
        if computed and classes and not classes.promised:
            reason = f" (class: {classes.reason()})"
        cause = self.cause if computed or same_data else RECORDS
        lines = [f"the runs part at step {self.step}, first in {cause}{reason}"]
        for stream, (step, before, after) in self.firsts.items():
            change = f"{before} -> {after}"
            lines.append(f"  {stream:<9} first at step {step}: {change}")
        return lines


def bisect(before: str, after: str) -> Parting | None:
    """Where two flight records part; None where they agree in every step that both have.

    Raises:
        ValueError: they have no step in common.
    """
    old = _by_step(before)
    new = _by_step(after)
    common = sorted(set(old) & set(new))
    if not common:
        raise ValueError("the two flight records have no step in common")
    firsts: dict[str, tuple[int, object, object]] = {}
    for step in common:
        for stream in STREAMS:
            value = old[step].get(stream)
            again = new[step].get(stream)
            if stream not in firsts and _differ(value, again):
                firsts[stream] = (step, value, again)
    if not firsts:
        return None
    # Steps were visited in order, and the streams of one in the order of cause and effect.
    stream, (step, _, _) = next(iter(firsts.items()))
    cause = INITIAL if step == 0 else STREAMS[stream]
    return Parting(step, cause, firsts)


def _differ(before: object, after: object) -> bool:
    """Whether two recorded values differ; NaN equals NaN as text, and what one run lacks says nothing."""
    if before is None or after is None:
        return False
    return json.dumps(before) != json.dumps(after)


def _by_step(text: str) -> dict[int, dict]:
    whole = [line for line in text.splitlines() if line.endswith("}")]
    records = map(json.loads, whole)
    return {record["step"]: record for record in records}
