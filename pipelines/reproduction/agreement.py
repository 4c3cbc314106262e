"""How far the losses of two runs agree: to how many digits, up to which step, from their flight records."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MOST_STRETCHES = 4  # that are told
ALL = 99  # digits of equal numbers


@dataclass(frozen=True)
class Stretch:
    """Steps up to `last`, over which the losses agree to `digits`, or better."""

    digits: int
    last: int


def lines(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """One line on the losses of two runs by their recorded texts; none where a record lacks them or all are equal."""
    old = _losses(before)
    new = _losses(after)
    pairs = []
    for step in sorted(old):
        if step in new:
            pairs.append((step, old[step], new[step]))
    if all(digits(first, second) == ALL for _, first, second in pairs):
        return []
    last = pairs[-1][0]
    shared = stretches(pairs)
    shown = shared[:MOST_STRETCHES]
    told = [_told(stretch) for stretch in shown]
    if not shown:
        return ["losses agree: in no digit from the first step on"]
    if len(shared) > len(shown):
        told.append("fewer after")
    elif shown[-1].last < last:
        told.append("none after")
    listed = ", ".join(told)
    return [f"losses agree: {listed}"]


def stretches(losses: list[tuple[int, float, float]]) -> list[Stretch]:
    """The digits that are left after each step: they never become more again, since a later agreement is chance.

    Args:
        losses: step and the losses of both runs, in the order of steps.
    """
    found: list[Stretch] = []
    fewest = ALL
    for step, old, new in losses:
        fewest = min(fewest, digits(old, new))
        if found and found[-1].digits == fewest:
            found.pop()
        found.append(Stretch(fewest, step))
    return [stretch for stretch in found if stretch.digits > 0]


def digits(before: float, after: float) -> int:
    """Decimal digits in which two numbers agree."""
    if before == after or (math.isnan(before) and math.isnan(after)):
        return ALL
    larger = max(abs(before), abs(after))
    apart = abs(before - after) / larger
    if not math.isfinite(apart):
        return 0
    whole = math.floor(-math.log10(apart))
    return max(0, whole)


def _told(stretch: Stretch) -> str:
    number = "1 digit" if stretch.digits == 1 else f"{stretch.digits} digits"
    amount = "in every bit" if stretch.digits == ALL else f"to {number}"
    return f"{amount} up to step {stretch.last}"


def _losses(texts: Mapping[str, str]) -> dict[int, float]:
    return dict(_steps(texts.get("flight.jsonl", "")))


def _steps(text: str) -> Iterator[tuple[int, float]]:
    for line in text.splitlines():
        if line.endswith("}"):  # The last line of a killed run may be cut off.
            step = json.loads(line)
            if "loss" in step:
                yield step["step"], step["loss"]
