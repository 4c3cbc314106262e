"""The record of the catalogue: what was measured of each experiment, under which versions and settings."""

import hashlib
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
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
FOLDER = config.FOLDER / "experiment" / "catalogue"
FILE = config.FOLDER / "catalogue.yaml"
HEADER = "# What `make test-matrix` measured of each official experiment; docs/catalogue.md shows it. Written by it, never by hand.\n"
KINDS = {
    "digits": "classification",
    "digit_scenes": "detection",
    "digit_masks": "segmentation",
    "moving_digits": "video_classification",
}

# What is missing here, of those that cannot be tried for it.
UNFED = {
    "seg_unet3d_test": "reads volumes (raw bytes of float32 voxels and of one-hot labels): no task here has such records, "
    "and no source or embedded data set gives any"
}


def names() -> list[str]:
    """The experiments of the catalogue."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def read() -> dict[str, dict[str, Any]]:
    """What was measured, by experiment."""
    return (yaml.safe_load(FILE.read_text()) or {}) if FILE.exists() else {}


def keep_the_rest() -> None:
    """Adds a row for each experiment that cannot be tried: of what is missing upstream, or what is missing here."""
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
        why = missing or UNFED.get(name, "no small form of it is written yet")
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


def waiting(only: str, again: bool) -> list[str]:
    """The experiments to measure: those named, or all; without those measured under these versions and settings."""
    chosen = only.split(",") if only else names()
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        raise SystemExit(f"not in the catalogue: {', '.join(unknown)}")
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
    return {**row, "project": project, "measured": version(name)}


def _fault(notes: Mapping[str, Any], status: int) -> str:
    """What is wrong, in words; empty where nothing is."""
    trained, resumed = notes.get("trained"), notes.get("resumed")
    if "failed" in notes:
        return str(notes["failed"]["why"])
    if trained is None or resumed is None:
        stage = "training" if trained is None else "the evaluation"
        return f"its process ended in {stage}: {_ending(status)}"
    if len(set(trained["trainable"])) < 2:
        return "no weight has moved"
    if resumed["step"] != [stages.SAVED]:
        return f"resumed from step {resumed['step']}, not {stages.SAVED}"
    if trained["weights"] != resumed["weights"]:
        return "the resumed training has other weights than the undisturbed one"
    if resumed["value"] is None:
        return f"its evaluation gives no {resumed['figure']}: {', '.join(resumed['figures'])}"
    if "exported" not in notes:
        return f"its process ended in the export: {_ending(status)}"
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


def sample(commit: str, most_s: float) -> list[str]:
    """An experiment of each of a few families, drawn by a commit, which together took less than so many CPU seconds."""
    rows = read()
    drawn = random.Random(commit)
    grouped = sorted(families().items())
    drawn.shuffle(grouped)
    chosen: list[str] = []
    left = most_s
    for _, members in grouped:
        cheapest = sorted(members, key=lambda name: rows[name]["cpu_s"])
        name = drawn.choice(cheapest[: max(1, len(members) // 2)])
        if rows[name]["cpu_s"] <= left:
            chosen.append(name)
            left -= rows[name]["cpu_s"]
    return chosen
