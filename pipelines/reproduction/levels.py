"""How far a run can be made again, in five levels; each stands on those before it.

R0  the configuration is recorded
R1  data and starting weights are known by content
R2  code and environment are locked: a clean commit, the installed packages those of the lock
R3  determinism was shown in this class, by a check or by a repeat with equal bits
R4  made again, in another process tree or on another machine, with equal bits
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from pipelines.outside import printable
from pipelines.system import durable

MEANINGS = (
    "configuration recorded",
    "data and starting weights known by content",
    "code and environment locked",
    "determinism shown in this class",
    "made again with equal bits",
)
WITNESSES = "witnesses.jsonl"  # in `runs_dir`: where determinism was shown, a line each
LOCK = "requirements.lock"
MOST_PACKAGES = 3  # that a line names

Texts = Mapping[str, str]


@dataclass(frozen=True)
class Level:
    """How far a run can be made again; `lacking` says what keeps it from the next level, None of the last."""

    number: int
    lacking: str | None

    @property
    def name(self) -> str:
        """R0 to R4."""
        return f"R{self.number}"

    def recorded(self) -> dict[str, str | None]:
        """The level as a summary holds it."""
        return {"reached": self.name, "next": self.lacking, "line": self.line()}

    def line(self) -> str:
        """The level, and what keeps it from the next, in one line."""
        line = f"level {self.name} of R{len(MEANINGS) - 1}: {MEANINGS[self.number]}"
        if self.lacking is None:
            return line
        return f"{line}; for R{self.number + 1}: {self.lacking}"


def of(texts: Texts, lock: str | None, witnesses: Sequence[Mapping[str, Any]]) -> Level:
    """The level of a run.

    Args:
        texts: what it recorded, by file name.
        lock: the text of the source's lock; None: there is none.
        witnesses: where determinism was shown, as `shown` tells.
    """
    reasons = [
        _unknown_content(texts),
        _unlocked(texts, lock),
        _not_shown(texts, witnesses),
        _not_repeated(texts),
    ]
    for number, reason in enumerate(reasons):
        if reason:
            return Level(number, reason)
    return Level(len(reasons), None)


def of_directory(run_dir: Path, root: Path, runs_dir: Path, summary: Mapping[str, Any]) -> Level:
    """The level of a run from its directory.

    Args:
        root: the source tree, which has the lock.
        summary: what its `summary.json` holds or will hold.
    """
    texts = {"summary.json": json.dumps(summary, default=str)}
    for name in ("config.yaml", "manifest.json", "environment.json", "diff.patch"):
        file = run_dir / name
        texts[name] = durable.read_text(file) if file.exists() else ""
    lock = root / LOCK
    text = lock.read_text() if lock.exists() else None
    return of(texts, text, shown(runs_dir))


def witness(runs_dir: Path, how: str, texts: Texts) -> None:
    """Notes that a recipe gave equal bits twice in the class that a run recorded.

    Args:
        how: what showed it: `check` or `repeat`.
    """
    entry = {
        "how": how,
        "experiment": _config(texts).get("name"),
        "class": of_class(texts),
        "time": int(time.time()),
    }
    runs_dir.mkdir(parents=True, exist_ok=True)
    lines = durable.as_lines(entry)
    durable.append(runs_dir / WITNESSES, lines)


def shown(runs_dir: Path) -> list[dict[str, Any]]:
    """Where determinism was shown, as `witness` has noted it."""
    file = runs_dir / WITNESSES
    if not file.exists():
        return []
    return [entry for entry, _ in durable.read_lines(file)]


def of_class(texts: Texts) -> str:
    """Names the determinism class of a run, by content."""
    recorded = _document(texts, "environment.json").get("determinism_class", {})
    text = json.dumps(recorded, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unknown_content(texts: Texts) -> str | None:
    data = _document(texts, "manifest.json")
    for split in data.get("splits", {}).values():
        if not all(shard.get("sha256") for shard in split["shards"]):
            return "the digests of its data are not recorded"
    if not data.get("fingerprint"):
        return "its data are not recorded"
    weights = (_config(texts).get("task") or {}).get("init_checkpoint")
    recorded = _document(texts, "summary.json").get("starting_weights") or {}
    if weights and not recorded.get("sha256"):
        return f"its starting weights are known by their path alone ({printable(weights)})"
    return None


def _unlocked(texts: Texts, lock: str | None) -> str | None:
    environment = _document(texts, "environment.json")
    tree = environment.get("git", {})
    if not tree.get("commit"):
        return "its code is in no git commit"
    if tree.get("dirty") or texts.get("diff.patch"):
        return "the source had uncommitted changes; commit them, and train again"
    if tree.get("changed_meanwhile"):
        return "the source was edited while it was started; train again"
    for name, project in environment.get("own", {}).items():
        if project["dirty"]:
            return f"{name} of your own is in no commit as it was; commit it, and train again"
    if lock is None:
        return f"there is no {LOCK} beside the source"
    try:
        strangers = _unlocked_packages(environment.get("packages", []), lock)
    except InvalidRequirement as error:
        return f"{LOCK} cannot be read: {printable(error)}; renew it: make lock"
    if strangers:
        named = ", ".join(strangers[:MOST_PACKAGES])
        return (
            f"{len(strangers)} packages are not those of {LOCK} ({named}); install them: make setup"
        )
    return None


def _unlocked_packages(installed: Sequence[str], lock: str) -> list[str]:
    """Locked packages that are absent or installed in another version."""
    versions = {}
    for line in installed:
        name, _, version = line.partition("==")
        versions[canonicalize_name(name)] = version
    strangers = []
    for requirement in _locked(lock):
        present = versions.get(canonicalize_name(requirement.name))
        if present is None:
            strangers.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(present, prereleases=True):
            strangers.append(f"{requirement.name} {present} instead of {requirement.specifier}")
    return strangers


def _locked(lock: str) -> list[Requirement]:
    """What a lock asks for on this system."""
    requirements = []
    for line in lock.splitlines():
        if line and not line.startswith((" ", "#", "-")):
            requirement = Requirement(line.rstrip("\\ "))
            if requirement.marker is None or requirement.marker.evaluate():
                requirements.append(requirement)
    return requirements


def _not_shown(texts: Texts, witnesses: Sequence[Mapping[str, Any]]) -> str | None:
    settings = _config(texts)
    if not settings.get("determinism", True):
        return "determinism=off"
    name = settings.get("name")
    of_run = {"experiment": name, "class": of_class(texts)}
    if any(of_run.items() <= entry.items() for entry in witnesses):
        return None
    if _document(texts, "summary.json").get("repeats"):
        return None
    return (
        f"no equal repeat of {name} in this class of machine is on record; "
        f"show one: make check EXP={name} ARGS=--determinism"
    )


def _not_repeated(texts: Texts) -> str | None:
    summary = _document(texts, "summary.json")
    if summary.get("repeats"):
        return None
    return f"not made again yet: make reproduce RUN={summary.get('run_dir', '<run>')}"


def _config(texts: Texts) -> dict[str, Any]:
    return yaml.safe_load(texts.get("config.yaml") or "{}") or {}


def _document(texts: Texts, name: str) -> dict[str, Any]:
    return json.loads(texts.get(name) or "{}")
