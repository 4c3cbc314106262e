"""Whether two runs belong to one determinism class, within which alone equal inputs are promised to give equal bits."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.outside import printable
from pipelines.system import arithmetic, kernels

# Variables that explain a difference in what is in force.
ONEDNN = "onednn_in_force"
EXPLAINING = {
    "processor.instruction_set": tuple(f"variables.{cap}" for cap in arithmetic.CAPS),
    # What the variable does is in force or not, whoever has set it.
    ONEDNN: (f"variables.{kernels.ONEDNN}",),
}
# Earlier versions recorded what was asked for; the variable says it too. And TensorFlow sets its own variable when it is imported.
RETIRED = {"onednn", "variables.TF2_BEHAVIOR"}
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
    "tensorflow_build.git": "TensorFlow's source",
    "tensorflow_build.binaries": "TensorFlow's compiled libraries",
    "compiler": "TensorFlow's compiler",
    "numpy": "NumPy",
    "numpy_build.blas": "NumPy's linear algebra",
    "numpy_build.compiler": "NumPy's compiler",
    "numpy_build.binaries": "NumPy's compiled libraries",
    "numpy_build.extensions": "NumPy's vector extensions",
    ONEDNN: "oneDNN",
    "libjpeg": "libjpeg-turbo",
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
    unknown = _unknown(before, after) or _lacking(old, new)
    if unknown:
        keys = [key for key in keys if _is_told(key, old, new)]
    differing = [key for key in keys if old.get(key) != new.get(key)]
    if ONEDNN in old and old[ONEDNN] == new.get(ONEDNN):
        differing = [key for key in differing if key not in EXPLAINING[ONEDNN]]
    reasons = _reasons(differing)
    explaining = {variable for variables in reasons.values() for variable in variables}
    lines = []
    for key in differing:
        if key not in explaining:
            change = (old.get(key), new.get(key))
            lines.append(_line(key, *change, reasons.get(key, [])))
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


def _lacking(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Says what a record from before an earlier version's class was widened does not hold."""
    for which, recorded, other in (("first", before, after), ("second", after, before)):
        absent = [key for key in _in_order(recorded, other) if not _is_told(key, recorded)]
        if absent:
            names = [printable(NAMES.get(key, key)) for key in absent]
            return f"{', '.join(names)} not recorded by the {which} run"
    return None


def _is_told(key: str, *recorded: Mapping[str, Any]) -> bool:
    """Whether records hold a part of the class; a variable that is not there was not set."""
    return key.startswith("variables.") or all(key in record for record in recorded)


def _in_order(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys of both, those that have a name first."""
    keys = [key for key in {**before, **after} if key not in RETIRED]
    named = [key for key in NAMES if key in keys]
    return named + [key for key in keys if key not in NAMES]


def _reasons(differing: list[str]) -> dict[str, list[str]]:
    """The variables among the differing keys that explain others among them, by what they explain."""
    reasons = {}
    for key, variables in EXPLAINING.items():
        if key in differing:
            reasons[key] = [variable for variable in variables if variable in differing]
    return reasons


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            inner = f"{path}.{key}" if path else str(key)
            yield from _leaves(value, inner)
    else:
        yield path, node


def _line(key: str, before: Any, after: Any, reasons: list[str]) -> str:
    if key == "processor.instructions":
        return _instructions(before or [], after or [])
    variables = ", ".join(reasons).replace("variables.", "")
    reason = f" ({variables})" if variables else ""
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
