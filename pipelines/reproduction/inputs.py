"""What went into two recorded runs, and what of it differs: config, data, code, environment."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from pipelines import config
from pipelines.config import differences
from pipelines.outside import printable
from pipelines.reproduction import classes

KINDS = ("config", "data", "code", "environment")  # kinds of things that go into a run
TOLD = (config.RESULT, config.GUARD, config.PASSIVE)  # not where it ran and how it was called
# What a machine calls itself; what it computes with is in the class.
MACHINE = ("platform", "machine", "cpu")
DATA = ("dataset", "fingerprint", "version", "labels")
MOST_LINES = 30  # that each kind takes
DIGITS = 12  # of a digest, that are shown
_DIFF = re.compile(r"^diff --git a/(.*) b/.*$", re.MULTILINE)


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, list[str]]:
    """Lines on what differs, by kind, from the recorded texts of two runs (by file name)."""
    return {
        "config": _config(before, after),
        "data": _data(before, after),
        "code": _code(before, after),
        "environment": _environment(before, after),
    }


def kinds(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """The kinds that differ, where the machine's own names, which no two machines share, are none."""
    found = {kind for kind, changes in differing(before, after).items() if changes}
    if not _environment(before, after, named=()):
        found.discard("environment")
    return found


def lines(differing: Mapping[str, Sequence[str]]) -> list[str]:
    """What differs as readable lines, under a heading for each kind."""
    text = []
    for kind, changes in differing.items():
        text.append(f"{kind}:" if changes else f"{kind}: the same")
        text += [f"  {line}" for line in changes[:MOST_LINES]]
        if len(changes) > MOST_LINES:
            text.append(f"  … {len(changes) - MOST_LINES} more")
    return text


def _document(texts: Mapping[str, str], name: str) -> dict[str, Any]:
    return json.loads(texts.get(name, "{}"))


def _config(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    lines = differences(
        _settings(before),
        _settings(after),
    )
    said = {_change(line) for line in lines}
    # Without another setting or other data, nothing of ours has changed what Model Garden was given.
    following = lines or _data(before, after)
    whose = "as resolved" if following else "Model Garden's default"
    for line in _resolved(before, after):
        if _change(line) not in said:
            lines.append(f"{whose} {line}")
    return lines


def _change(line: str) -> tuple[str, str]:
    """The last word of a setting's key, and its values: a seed reaches every reader under its own name."""
    key, _, values = line.partition(": ")
    name = key.rpartition(".")[2]
    return name, values


def _settings(texts: Mapping[str, str]) -> dict[str, Any]:
    document = yaml.safe_load(texts.get("config.yaml", "{}"))
    return config.settings(document or {}, *TOLD)


def _resolved(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What differs in what Model Garden's trainer was given, defaults and all."""
    documents = []
    for texts in (before, after):
        if "params.yaml" not in texts:
            return []
        document = yaml.safe_load(texts["params.yaml"])
        documents.append(config.settings(document, *TOLD))
    old, new = documents
    return differences(old, new)


def _data(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    old = _document(before, "manifest.json")
    new = _document(after, "manifest.json")
    lines = differences(
        _only(DATA, old),
        _only(DATA, new),
    )
    lines += differences(
        _contents(old),
        _contents(new),
    )
    return lines


def _contents(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """How many examples each split has, and the bytes of each shard by a digest."""
    contents: dict[str, Any] = {}
    splits = manifest.get("splits", {})
    for name, split in splits.items():
        of_split = {"examples": split["examples"]}
        for shard in split["shards"]:
            digest = shard["sha256"]
            of_split[shard["file"]] = digest[:DIGITS]
        contents[name] = of_split
    return contents


def _only(names: Sequence[str], document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: document.get(name) for name in names}


def _code(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    old = _document(before, "environment.json")
    new = _document(after, "environment.json")
    lines = differences(
        _only(["commit"], old.get("git", {})),
        _only(["commit"], new.get("git", {})),
    )
    lines += _uncommitted(
        before.get("diff.patch", ""),
        after.get("diff.patch", ""),
    )
    # Earlier versions did not record them.
    if "sources" in old and "sources" in new:
        installed = differences(old["sources"], new["sources"])
        lines += [f"sources of {line}" for line in installed]
    return lines


def _uncommitted(before: str, after: str) -> list[str]:
    if before == after:
        return []
    files = _changed_files(before, after)
    listed = ", ".join(files)
    said = "uncommitted changes differ (diff.patch)"
    return [f"{said}: {listed}" if files else said]


def _changed_files(before: str, after: str) -> list[str]:
    """The files whose uncommitted changes differ."""
    old = _by_file(before)
    new = _by_file(after)
    changed = []
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            changed.append(printable(name))
    return changed


def _by_file(diff: str) -> dict[str, str]:
    parts = _DIFF.split(diff)
    names = parts[1::2]
    changes = parts[2::2]
    return dict(zip(names, changes, strict=True))


def _environment(
    before: Mapping[str, str],
    after: Mapping[str, str],
    named: Sequence[str] = MACHINE,
) -> list[str]:
    old = _document(before, "environment.json")
    new = _document(after, "environment.json")
    # Variables that are part of the class are told with it.
    of_class = classes.variables(before, after)
    lines = differences(
        _only(["python", *named], old),
        _only(["python", *named], new),
    )
    lines += differences(
        _variables(old, of_class),
        _variables(new, of_class),
        "variables",
    )
    lines += differences(
        _packages(old),
        _packages(new),
    )
    return lines


def _variables(environment: Mapping[str, Any], of_class: Collection[str]) -> dict[str, str]:
    variables = environment.get("variables", {})
    return {name: value for name, value in variables.items() if name not in of_class}


def _packages(environment: Mapping[str, Any]) -> dict[str, str]:
    """Versions by name."""
    return dict(line.split("==", 1) for line in environment.get("packages", []))
