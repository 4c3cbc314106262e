"""Whether two runs belong to one determinism class, within which alone equal inputs are promised to give equal bits."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.outside import printable
from pipelines.system import arithmetic

CAPPING = tuple(f"variables.{cap}" for cap in arithmetic.CAPS)
NOT_PROMISED = "bits are not promised"
# How a difference is called, by its place in the recorded class; what is not listed goes by its place.
NAMES = {
    "processor.instruction_set": "instruction set",
    "processor.architecture": "processor architecture",
    "processor.vendor": "processor vendor",
    "processor.family": "processor family",
    "processor.model": "processor model",
    "processor.instructions": "processor instructions",
    "processor.caches.L1d.bytes": "L1d cache",
    "processor.caches.L2.bytes": "L2 cache",
    "processor.caches.L3.bytes": "L3 cache",
    "processor.caches.L3.shared_by": "processors that share the L3 cache",
    "libc": "C library",
    "tensorflow": "TensorFlow",
    "tensorflow_build.git": "TensorFlow's build",
    "compiler": "TensorFlow's compiler",
    "numpy": "NumPy",
    "numpy_build.blas": "NumPy's linear algebra",
    "numpy_build.compiler": "NumPy's compiler",
    "onednn": "oneDNN",
}


@dataclass(frozen=True)
class Classes:
    """What two determinism classes differ in, most telling first; `unknown`: why that cannot be told, None if it can."""

    unknown: str | None = None
    differing: list[str] = field(default_factory=list)

    @property
    def promised(self) -> bool:
        """Whether equal inputs are promised to give equal bits."""
        return self.unknown is None and not self.differing

    def reason(self) -> str:
        """Why bits are not promised, in a few words."""
        return self.unknown or self.differing[0]

    def lines(self) -> list[str]:
        """The comparison as readable lines."""
        if self.promised:
            return ["class: the same"]
        others = self.differing if self.unknown else self.differing[1:]
        return [f"class: {self.reason()}; {NOT_PROMISED}", *(f"  {line}" for line in others)]


def between(before: Mapping[str, str], after: Mapping[str, str]) -> Classes:
    """Compares the classes of two runs by their recorded texts (by file name)."""
    return compare(_class(before), _class(after))


def here(texts: Mapping[str, str]) -> Classes:
    """Compares a recorded run's class with this process, as far as that is known before TensorFlow is imported."""
    machine, recorded = arithmetic.describe(), _class(texts)
    return compare({name: recorded[name] for name in machine if name in recorded}, machine)


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Classes:
    """Compares two classes as `environment.json` holds them; what was not recorded is unknown, not equal."""
    one, other = dict(_leaves(before)), dict(_leaves(after))
    places = [place for place in _in_order(one, other) if one.get(place) != other.get(place)]
    unknown = _unknown(before, after)
    if unknown:
        places = [place for place in places if place in one and place in other]
    caps = _capping(places)
    differing = [
        _line(place, one.get(place), other.get(place), caps)
        for place in places
        if place not in caps
    ]
    return Classes(unknown, differing)


def variables(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """Names of the variables that are part of either run's class."""
    return {name for texts in (before, after) for name in _class(texts).get("variables", {})}


def _class(texts: Mapping[str, str]) -> dict[str, Any]:
    found = json.loads(texts.get("environment.json", "{}")).get("determinism_class")
    return found if isinstance(found, dict) else {}


def _unknown(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    for which, found in (("first", before), ("second", after)):
        if not isinstance(found.get("processor"), dict):
            return f"not recorded by the {which} run"
        if found["processor"].get("instructions") is None:
            return f"the processor of the {which} run is not known, as its system did not tell"
    return None


def _in_order(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """All places of both, those that have a name first."""
    places = [*one, *(place for place in other if place not in one)]
    return [name for name in NAMES if name in places] + [
        place for place in places if place not in NAMES
    ]


def _capping(places: list[str]) -> list[str]:
    """The variables among the differing places that explain another instruction set."""
    return (
        [place for place in places if place in CAPPING]
        if "processor.instruction_set" in places
        else []
    )


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _line(place: str, before: Any, after: Any, caps: list[str]) -> str:
    if place == "processor.instructions":
        return _instructions(before or [], after or [])
    reason = ""
    if place == "processor.instruction_set" and caps:
        reason = f" ({', '.join(caps).replace('variables.', '')})"
    name = NAMES.get(place, place.removeprefix("processor.").removeprefix("variables."))
    return f"{printable(name)} {_value(before)} -> {_value(after)}{reason}"


def _instructions(before: list[str], after: list[str]) -> str:
    lost = [f"-{name}" for name in before if name not in after]
    gained = [f"+{name}" for name in after if name not in before]
    return f"{NAMES['processor.instructions']} {printable(' '.join(lost + gained))}"


def _value(value: Any) -> str:
    return "not set" if value is None else printable(value)
