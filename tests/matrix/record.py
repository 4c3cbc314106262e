"""The record of the catalogue: what was measured of each experiment, under which versions and settings."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from pipelines import config
from pipelines.system import durable
from tests.matrix import page, stages

WORKS = "works"
UPSTREAM = "broken upstream"
FAILS = "fails"
OPEN = "not measured"
REWRITTEN = page.REWRITTEN
FOLDER = config.FOLDER / "experiment" / "catalogue"
FILE = config.FOLDER / "catalogue.yaml"
HEADER = "# What `make test-matrix` measured of each official experiment; docs/catalogue.md shows it. Written by it, never by hand.\n"
KINDS = {
    "digits": "classification",
    "digit_scenes": "detection",
    "digit_masks": "segmentation",
    "moving_digits": "video_classification",
    "digit_volumes": "volume_segmentation",
}
TURNS = 11  # commits until every family was sampled; a prime, for pushes of several commits
WHOLE_S = 50  # CPU seconds above which an experiment is sampled in brief
BRIEF_SHARE = 0.4  # of them, for building it and training it


def names() -> list[str]:
    """The experiments of the catalogue."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def read() -> dict[str, dict[str, Any]]:
    """What was measured, by experiment."""
    return config.catalogue()


def keep_the_rest() -> None:
    """Adds a row for each experiment that cannot be tried: of what is missing upstream."""
    from pipelines.training import projects  # TensorFlow, as the next.
    from tests.matrix import registered

    rows = read()
    there = set(names())
    everything = registered.experiments()
    for name, project in everything.items():
        if name in there:
            rows.setdefault(name, {"status": OPEN})["project"] = project
            continue
        missing = projects.trouble(project) if project in projects.REGISTERING else None
        why = missing or "no small form of it is written yet"
        rows[name] = {"status": UPSTREAM if missing else OPEN, "why": why, "project": project}
    write({name: rows[name] for name in everything})


def keep(name: str, row: Mapping[str, Any]) -> None:
    """Puts a row in the place of an earlier one, and draws the page anew."""
    rows = {**read(), name: dict(row)}
    write({key: rows[key] for key in sorted(rows)})


def write(rows: Mapping[str, Any]) -> None:
    """Writes all rows, and the page that shows them."""
    text = yaml.safe_dump(rows, sort_keys=False, width=200, allow_unicode=True)
    durable.write_whole(FILE, HEADER + text)
    page.write(rows)


def known(listed: str) -> list[str]:
    """The experiments of a list, each of them in the catalogue."""
    chosen = listed.split(",") if listed else []
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        raise SystemExit(f"not in the catalogue: {', '.join(unknown)}")
    return chosen


def waiting(only: str | None, again: bool) -> list[str]:
    """The experiments to measure: those named, or all; without those measured under these versions and settings."""
    chosen = names() if only is None else known(only)
    if again:
        return chosen
    rows = read()
    return [name for name in chosen if rows.get(name, {}).get("measured") != version(name)]


def version(name: str) -> str:
    """What a measurement holds for: the versions of upstream, and the settings of an experiment."""
    texts = "".join(_texts(FOLDER / f"{name}.yaml"))
    settings = hashlib.sha256(texts.encode()).hexdigest()[:8]
    garden, tensorflow = (metadata.version(name) for name in ("tf-models-official", "tensorflow"))
    return f"Model Garden {garden}, TensorFlow {tensorflow}, settings {settings}"


def _texts(file: Path) -> Iterator[str]:
    """An experiment's file and those that it starts from, which takes a hundredth of composing it."""
    text = file.read_text()
    yield text
    for parent in yaml.safe_load(text).get("defaults", []):
        if isinstance(parent, str) and parent.startswith("/"):
            yield from _texts(config.FOLDER / f"{parent[1:]}.yaml")


def composed(name: str, data: Mapping[str, Sequence[str]], folder: Path) -> config.Config:
    """The configuration that an experiment is tried with, on tiny data of its kind."""
    dataset = config.compose([f"experiment=catalogue/{name}"]).dataset
    kind = KINDS[dataset.name if dataset else ""]
    return stages.composed(name, data[kind], folder)


def _noted(folder: Path) -> dict[str, dict[str, Any]]:
    """The last note of each stage."""
    file = folder / stages.FILE
    notes = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {note["stage"]: note for note in notes}


def has(folder: Path, stage: str) -> bool:
    """Whether a stage has been reached."""
    return stage in _noted(folder)


def judged(name: str, folder: Path, status: int, cpu_s: float, peak_mb: int) -> dict[str, Any]:
    """The row of an experiment that was tried."""
    notes = _noted(folder)
    why = _fault(notes, status)
    row: dict[str, Any] = {"status": FAILS if why else WORKS}
    if why:
        row["why"] = why
    exported = dict(notes.get("exported", {}))
    exported.pop("stage", None)
    row |= {
        "task": notes.get("built", {}).get("task"),
        "figure": notes.get("resumed", {}).get("figure"),
    }
    row |= {"exports": exported, "cpu_s": round(cpu_s), "peak_mb": peak_mb}
    from tests.matrix import registered  # TensorFlow, imported by now.

    project = registered.experiments()[name]
    return {**row, "project": project, REWRITTEN: True, "measured": version(name)}


def in_brief(folder: Path, status: int) -> str:
    """What is wrong with a training whose process was to end there; empty where nothing is."""
    return _fault_of_training(_noted(folder), status)


def _fault_of_training(notes: Mapping[str, Any], status: int) -> str:
    if "failed" in notes:
        return str(notes["failed"]["why"])
    if "trained" not in notes:
        return f"its process ended in training: {_ending(status)}"
    return "" if len(set(notes["trained"]["trainable"])) > 1 else "no weight has moved"


def keep_refusals(name: str, folder: Path) -> str:
    """Puts the refusals of an export into a row that was measured; what they say, or what there was instead."""
    answers = dict(_noted(folder).get("exported", {}))
    answers.pop("stage", None)
    refused = [words for words in answers.values() if words.startswith(stages.REFUSED)]
    if len(refused) < len(stages.FORMATS):
        return f"not refused, so to be measured whole: {answers}"
    keep(name, {**read()[name], "exports": answers})
    return refused[0]


def _fault(notes: Mapping[str, Any], status: int) -> str:
    """What is wrong, in words; empty where nothing is."""
    fault = _fault_of_training(notes, status)
    if fault:
        return fault
    trained, resumed = notes["trained"], notes.get("resumed")
    if resumed is None:
        return f"its process ended in the evaluation: {_ending(status)}"
    if resumed["step"] != [stages.SAVED]:
        return f"resumed from step {resumed['step']}, not {stages.SAVED}"
    if trained["weights"] != resumed["weights"]:
        return "the resumed training has other weights than the undisturbed one"
    if resumed["value"] is None:
        return f"its evaluation gives no {resumed['figure']}: {', '.join(resumed['figures'])}"
    return _fault_of_exports(notes.get("exported", {}), status)


def _fault_of_exports(answers: Mapping[str, str], status: int) -> str:
    """Each format is written, or refused in words for users."""
    for form in stages.FORMATS:
        if form not in answers:
            return f"its process ended in the export to {form}: {_ending(status)}"
        if answers[form] != stages.WRITTEN and not answers[form].startswith(stages.REFUSED):
            return f"{form} is neither written nor refused: {answers[form]}"
    return ""


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit code {os.WEXITSTATUS(status)}"


def families() -> dict[str, list[str]]:
    """What works, by the kind of task, each with what it took; families that share no code apart."""
    grouped: dict[str, list[str]] = {}
    for name, row in read().items():
        if row["status"] == WORKS:
            grouped.setdefault(f"{row['project']} {row['task']}", []).append(name)
    return grouped


@dataclass
class Sample:
    """What is tried beside a commit.

    Attributes:
        whole: tried as the record has it.
        brief: composed, built and trained, since the rest takes minutes.
        cost: CPU seconds, as expected.
    """

    whole: list[str] = field(default_factory=list)
    brief: list[str] = field(default_factory=list)
    cost: float = 0.0

    def take(self, name: str, seconds: float) -> None:
        """Adds an experiment that the record has so many seconds for."""
        is_brief = seconds > WHOLE_S
        (self.brief if is_brief else self.whole).append(name)
        self.cost += BRIEF_SHARE * seconds if is_brief else seconds


def sample(number: int) -> Sample:
    """An experiment of each of some families, for the commit of a number: any `TURNS` commits in a row reach all families.

    The families are dealt out, the dearest first, each to the turn that has the least so far.
    """
    rows = read()
    turns = [Sample() for _ in range(TURNS)]
    members = {}
    for family, names_of in families().items():
        cheapest = sorted(names_of, key=lambda name: rows[name]["cpu_s"])
        half = cheapest[: max(1, len(cheapest) // 2)]
        members[family] = half[number // TURNS % len(half)]
    dearest_first = sorted(members.values(), key=lambda name: (-rows[name]["cpu_s"], name))
    for name in dearest_first:
        turn = min(turns, key=lambda turn: turn.cost)
        turn.take(name, rows[name]["cpu_s"])
    return turns[number % TURNS]
