"""Whether two runs belong to one determinism class, within which alone equal inputs are promised to give equal bits."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.outside import printable
from pipelines.system import arithmetic

CAPPING = tuple(f"variables.{cap}" for cap in arithmetic.CAPS)
NOT_PROMISED = "bits are not promised"
# How a difference is called, by its key in the recorded class; what is not listed goes by its key.
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
        lines = [f"class: {self.reason()}; {NOT_PROMISED}"]
        rest = self.differing if self.unknown else self.differing[1:]
        lines += [f"  {difference}" for difference in rest]
        return lines


def between(before: Mapping[str, str], after: Mapping[str, str]) -> Classes:
    """Compares the classes of two runs by their recorded texts (by file name)."""
    return compare(_class(before), _class(after))


def here(texts: Mapping[str, str]) -> Classes:
    """Compares a recorded run's class with this process, as far as that is known before TensorFlow is imported."""
    machine = arithmetic.describe()
    recorded = _class(texts)
    comparable = {name: recorded[name] for name in machine if name in recorded}
    return compare(comparable, machine)


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Classes:
    """Compares two classes as `environment.json` holds them; what was not recorded is unknown, not equal."""
    old = dict(_leaves(before))
    new = dict(_leaves(after))
    keys = _in_order(old, new)
    unknown = _unknown(before, after)
    if unknown:
        keys = [key for key in keys if key in old and key in new]
    differing = [key for key in keys if old.get(key) != new.get(key)]
    caps = _capping(differing)
    lines = []
    for key in differing:
        if key not in caps:
            line = _line(key, old.get(key), new.get(key), caps)
            lines.append(line)
    return Classes(unknown, lines)


def kinds(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """The parts of the class in which two runs differ, by the key that they are recorded under."""
    old = _class(before)
    new = _class(after)
    return {key for key in {**old, **new} if old.get(key) != new.get(key)}


def variables(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """Names of the variables that are part of either run's class."""
    names: set[str] = set()
    for texts in (before, after):
        names.update(_class(texts).get("variables", {}))
    return names


def _class(texts: Mapping[str, str]) -> dict[str, Any]:
    environment = json.loads(texts.get("environment.json", "{}"))
    recorded = environment.get("determinism_class")
    return recorded if isinstance(recorded, dict) else {}


def _unknown(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    for which, recorded in (("first", before), ("second", after)):
        processor = recorded.get("processor")
        if not isinstance(processor, dict):
            return f"not recorded by the {which} run"
        if processor.get("instructions") is None:
            return f"the processor of the {which} run is not known, as its system did not tell"
    return None


def _in_order(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys of both, those that have a name first."""
    keys = list({**before, **after})
    named = [key for key in NAMES if key in keys]
    return named + [key for key in keys if key not in NAMES]


def _capping(keys: list[str]) -> list[str]:
    """The variables among the differing keys that explain another instruction set."""
    if "processor.instruction_set" not in keys:
        return []
    return [key for key in keys if key in CAPPING]


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            inner = f"{path}.{key}" if path else str(key)
            yield from _leaves(value, inner)
    else:
        yield path, node


def _line(key: str, before: Any, after: Any, caps: list[str]) -> str:
    if key == "processor.instructions":
        return _instructions(before or [], after or [])
    reason = ""
    if key == "processor.instruction_set" and caps:
        variables = ", ".join(caps).replace("variables.", "")
        reason = f" ({variables})"
    leaf = key.removeprefix("processor.").removeprefix("variables.")
    name = NAMES.get(key, leaf)
    change = f"{_value(before)} -> {_value(after)}"
    return f"{printable(name)} {change}{reason}"


def _instructions(before: list[str], after: list[str]) -> str:
    lost = [f"-{name}" for name in before if name not in after]
    gained = [f"+{name}" for name in after if name not in before]
    changes = printable(" ".join(lost + gained))
    return f"{NAMES['processor.instructions']} {changes}"


def _value(value: Any) -> str:
    return "not set" if value is None else printable(value)
