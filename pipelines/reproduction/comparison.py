"""Compares two recorded runs: what went in, and whether the same came out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipelines import config
from pipelines.config import differences
from pipelines.reproduction import classes
from pipelines.reproduction.classes import Classes

IDENTICAL, EQUIVALENT, DIFFERENT = "identical", "equivalent", "different"
TOLERANCE = 0.01  # of the headline metric, for "equivalent", where no stated figure has one
TOLD = (config.RESULT, config.GUARD, config.PASSIVE)  # not where it ran and how it was called
MACHINE = ("python", "platform", "machine", "cpu")


@dataclass(frozen=True)
class Comparison:
    """The verdict on two runs, their determinism classes, and what differs by kind: config, data, code, environment."""

    verdict: str
    classes: Classes
    inputs: dict[str, list[str]] = field(default_factory=dict)
    results: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The comparison as readable lines: the class first, the verdict last."""
        text = self.classes.lines()
        for kind, found in self.inputs.items():
            text.append(f"{kind}: {'the same' if not found else ''}".rstrip())
            text += [f"  {line}" for line in found[:30]] + (
                [f"  … {len(found) - 30} more"] if len(found) > 30 else []
            )
        return [*text, "results:", *(f"  {line}" for line in self.results), self._last_line()]

    def _last_line(self) -> str:
        if self.verdict == IDENTICAL or self.classes.promised:
            return self.verdict
        return f"{self.verdict}; class: {self.classes.reason()}; {classes.NOT_PROMISED}"


def compare(
    before: Mapping[str, str],
    after: Mapping[str, str],
    figures: tuple[Mapping[str, Mapping[int, float]], Mapping[str, Mapping[int, float]]],
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Compares two runs by their recorded texts (by file name) and figures (by name, then step).

    identical: equal weights, and every loss and metric equal at every step. equivalent: the headline metrics lie within
    `tolerance`. different: anything else.
    """
    same_class = classes.between(before, after)
    inputs = {
        "config": _config(before, after),
        "data": _data(before, after),
        "code": _code(before, after),
        "environment": _environment(before, after),
    }
    one, other = (json.loads(texts.get("summary.json", "{}")) for texts in (before, after))
    results, steps_equal = _figures(*figures)
    weights_line, weights_equal = _weights(one, other)
    results.append(weights_line)
    headlines = [summary.get("headline", {}) for summary in (one, other)]
    values = [headline.get("value") for headline in headlines]
    results.append(f"{headlines[0].get('metric')}: {values[0]} -> {values[1]}")
    if weights_equal and steps_equal:
        return Comparison(IDENTICAL, same_class, inputs, results)
    near = None not in values and abs(values[0] - values[1]) <= tolerance
    return Comparison(EQUIVALENT if near else DIFFERENT, same_class, inputs, results)


def _weights(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, bool]:
    """What to say of the weights, and whether all of them are known to be equal.

    Records from before `trainable_sha256` hold the digest over trained variables alone, under the name `weights_sha256`.
    """
    older = ["trainable_sha256" not in summary for summary in (one, other)]
    if older[0] == older[1]:
        digests = [summary.get("weights_sha256") for summary in (one, other)]
        return f"weights: {_parted(digests)}", bool(digests[0]) and digests[0] == digests[1]
    digests = [
        summary.get("trainable_sha256", summary.get("weights_sha256")) for summary in (one, other)
    ]
    which = "first" if older[0] else "second"
    return (
        f"trained weights: {_parted(digests)}; statistics and moving averages are not in the record of the {which}",
        False,
    )


def _parted(digests: list[str | None]) -> str:
    equal = bool(digests[0]) and digests[0] == digests[1]
    return "equal" if equal else f"{_short(digests[0])} -> {_short(digests[1])}"


def _config(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    documents = [yaml.safe_load(texts.get("config.yaml", "{}")) or {} for texts in (before, after)]
    return differences(*(config.settings(document, *TOLD) for document in documents))


def _data(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    one, other = (json.loads(texts.get("manifest.json", "{}")) for texts in (before, after))
    keys = ("dataset", "fingerprint", "version", "labels", "splits")
    return differences(*({key: manifest.get(key) for key in keys} for manifest in (one, other)))


def _code(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    one, other = (
        json.loads(texts.get("environment.json", "{}")).get("git", {}) for texts in (before, after)
    )
    found = differences({"commit": one.get("commit")}, {"commit": other.get("commit")})
    if before.get("diff.patch", "") != after.get("diff.patch", ""):
        found.append("uncommitted changes differ (diff.patch)")
    return found


def _environment(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    one, other = (json.loads(texts.get("environment.json", "{}")) for texts in (before, after))
    machine = differences(
        {key: one.get(key) for key in MACHINE}, {key: other.get(key) for key in MACHINE}
    )
    machine += _variables(before, after)
    packages = [
        dict(line.split("==", 1) for line in found.get("packages", [])) for found in (one, other)
    ]
    return machine + differences(*packages)


def _variables(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Differences in recorded variables that are no part of the determinism class."""
    of_class = classes.variables(before, after)
    documents = [json.loads(texts.get("environment.json", "{}")) for texts in (before, after)]
    one, other = (document.get("variables", {}) for document in documents)
    names = [
        name
        for name in [*one, *(name for name in other if name not in one)]
        if name not in of_class
    ]
    return differences(
        {name: one.get(name) for name in names},
        {name: other.get(name) for name in names},
        "variables",
    )


def _figures(
    before: Mapping[str, Mapping[int, float]], after: Mapping[str, Mapping[int, float]]
) -> tuple[list[str], bool]:
    lines, equal = [], True
    for kind in ("train/", "validation/"):
        names = [name for name in before if name.startswith(kind)]
        parted = [
            (step, name, value, after.get(name, {}).get(step))
            for name in names
            for step, value in before[name].items()
            if not _same(value, after.get(name, {}).get(step))
        ]
        count = sum(len(before[name]) for name in names)
        extra = [
            name
            for name in after
            if name.startswith(kind) and set(after[name]) - set(before.get(name, {}))
        ]
        equal = equal and not parted and not extra and count > 0
        if parted:
            step, name, value, other = min(parted)
            lines.append(
                f"{kind[:-1]}: {len(parted)} of {count} figures differ, first at step {step}: {name} {value} -> {other}"
            )
        elif extra:
            lines.append(
                f"{kind[:-1]}: {len(extra)} series have figures that the first run lacks, such as {extra[0]}"
            )
        else:
            lines.append(f"{kind[:-1]}: all {count} figures equal")
    return lines, equal


def _same(one: float, other: float | None) -> bool:
    return one == other or (
        one != one and other is not None and other != other
    )  # NaN equals NaN here


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "not recorded"
