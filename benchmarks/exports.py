"""Exports each experiment in each format, and writes into docs/exports.md what it gives and costs, or why not.    make bench-export

Takes the finished run of each experiment in a folder, or trains a short one there; `trellis export` does the rest. What its
ship cards say is kept in benchmarks/exports.json, so that a second call measures only what is lacking.
"""

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.system import durable, processes

# Settings of short trainings: what is compared is a file with its checkpoint, which need not be a good one.
SHORT = {
    "resnet": ("epochs=4", "evaluations=1"),
    "mobilenet": ("epochs=8", "evaluations=1"),
    "vit": ("epochs=12", "evaluations=1"),
    "retinanet": ("trainer.train_steps=160", "evaluations=1"),
    "fasterrcnn": ("trainer.train_steps=120", "evaluations=1"),
    "maskrcnn": ("trainer.train_steps=120", "evaluations=1"),
    "deeplabv3plus": ("trainer.train_steps=300", "evaluations=1"),
    "segmentation_fpn": ("trainer.train_steps=200", "evaluations=1"),
}
FORMATS = (
    "saved_model",
    "tflite",
    "tflite_fp16",
    "tflite_dynamic",
    "tflite_int8",
    "tfhub",
    "onnx",
)
KEPT = Path(__file__).with_name("exports.json")
PAGE = processes.ROOT / "docs" / "exports.md"
BEGIN, END = "<!-- written by make bench-export -->\n", "<!-- until here -->\n"
LACKING = "not measured yet"

Kept = dict[str, dict[str, Any]]


def read(file: Path = KEPT) -> Kept:
    """What has been measured, by experiment."""
    return json.loads(file.read_text()) if file.exists() else {}


def lacking(kept: Kept, experiment: str, formats: Sequence[str]) -> list[str]:
    """Those of the formats that nothing is kept of."""
    there = kept.get(experiment, {}).get("formats", {})
    return [form for form in formats if form not in there]


def trained(experiment: str, run: Path) -> dict[str, Any]:
    """The summary of the run in this folder, which is trained, or trained on, where it is not finished."""
    summary = run / "summary.json"
    if not summary.exists() or not _finished(summary):
        settings = (f"experiment={experiment}", *SHORT[experiment], f"run_dir={run}")
        _trellis("train", *settings).check_returncode()
    return json.loads(summary.read_text())


def _finished(summary: Path) -> bool:
    return json.loads(summary.read_text()).get("status") == "finished"


def _trellis(*words: str) -> subprocess.CompletedProcess:
    command, environment = processes.this_tool(*words)
    return subprocess.run(command, env=environment)


def measured(experiment: str, run: Path, formats: Sequence[str]) -> dict[str, Any]:
    """What the ship card of a run says of these formats, with the run's steps.

    Raises:
        RuntimeError: the export has written no card.
    """
    steps = trained(experiment, run)["steps"]
    file = run / "exports" / "card.json"
    file.unlink(missing_ok=True)
    # It ends with 1 where a format is refused, which is an answer.
    code = _trellis("export", f"run={run}", f"formats=[{','.join(formats)}]").returncode
    if not file.exists():
        raise RuntimeError(f"the export of {run} ended with {code} and wrote no card")
    here = f"{file.parent.resolve()}/"  # Reasons name files; where they lay is nobody's business.
    document = json.loads(file.read_text().replace(here, ""))
    told = file.with_suffix(".md").read_text().replace(here, "")
    head, rule, *lines = [line for line in told.splitlines() if line.startswith("|")]
    notes = [line for line in told.splitlines() if line and not line.startswith("|")]
    rows = {}
    for row, line in zip(document["formats"], lines, strict=True):
        form = row["format"]
        kept = {"machine": document["machine"], "head": [head, rule], "line": line}
        kept["notes"] = [note for note in notes if note.startswith(f"{form}: ")]
        rows[form] = {**row, **kept}
    return {"steps": steps, "formats": rows}


def keep(kept: Kept, experiment: str, found: Mapping[str, Any], file: Path = KEPT) -> None:
    """Adds what was measured of an experiment; of another training nothing is left beside it."""
    before = kept.get(experiment, {})
    rows = before["formats"] if before.get("steps") == found["steps"] else {}
    formats = {**rows, **found["formats"]}
    kept[experiment] = {"steps": found["steps"], "formats": formats}
    durable.write_whole(file, json.dumps(kept, indent=1) + "\n")


def block(kept: Kept) -> str:
    """All of it in Markdown: every experiment in every format, then the card of each experiment."""
    lines = [["experiment", *FORMATS], ["---"] * (1 + len(FORMATS))]
    for experiment in SHORT:
        rows = _rows(kept, experiment)
        lines.append([f"`{experiment}`", *(_in_short(row) for row in rows)])
    parts = [
        f"Machine: {'; '.join(_machines(kept))}.\n",
        "".join(f"{_cells(*line)}\n" for line in lines),
    ]
    for experiment in SHORT:
        parts.append(_heading(kept, experiment))
        parts.append(_card(_rows(kept, experiment)))
    return "\n".join(parts)


def _rows(kept: Kept, experiment: str) -> list[dict[str, Any]]:
    """A row of every format, in their order."""
    there = kept.get(experiment, {}).get("formats", {})
    rows = []
    for form in FORMATS:
        nothing = {"format": form, "status": LACKING}
        rows.append(there.get(form, nothing))
    return rows


def _card(rows: Sequence[Mapping[str, Any]]) -> str:
    """The lines of the ship cards, below the head of the first that there is."""
    heads = [row["head"] for row in rows if "head" in row]
    lines = [*heads[0]] if heads else [_cells("format", "status"), _cells("---", "---")]
    for row in rows:
        lines.append(row.get("line", _cells(row["format"], row["status"])))
    for row in rows:
        lines += [f"\n{note}" for note in row.get("notes", ())]
    return "\n".join(lines) + "\n"


def _cells(*words: str) -> str:
    return f"| {' | '.join(words)} |"


def _in_short(row: Mapping[str, Any]) -> str:
    """The change of the figure in points and p95 at all threads, or the first word of the status."""
    times = row.get("all_threads")
    if row["status"] != "ok" or not times:
        word, _, _ = row["status"].partition(":")
        return word
    return f"{100 * row['change']:+.2f}, {times['p95_ms']:.1f} ms"


def _heading(kept: Kept, experiment: str) -> str:
    """Title of an experiment's table: its steps, and the figure of its checkpoint."""
    title = f"### {experiment}\n"
    for row in _rows(kept, experiment):
        if "checkpoint" in row:
            steps = kept[experiment]["steps"]
            metric, figure = row["metric"], row["checkpoint"]
            return (
                f"{title}\nThe checkpoint, of {steps} steps: {metric} {figure:.4f} on "
                f"{row['images']} pictures of {row['size'][0]} x {row['size'][1]} px.\n"
            )
    return title


def _machines(kept: Kept) -> list[str]:
    names = set()
    for part in kept.values():
        names |= {row["machine"] for row in part["formats"].values()}
    return sorted(names)


def with_block(text: str, written: str) -> str:
    """A page with what stands between its marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{written}\n{END}{after}"


def main() -> None:
    """Measures what is lacking, and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--experiments", nargs="+", default=list(SHORT), choices=list(SHORT))
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--runs", type=Path, default=Path("runs/exports"), help="a run of each")
    parser.add_argument("--again", action="store_true", help="also what has been measured")
    parser.add_argument("--write", action="store_true", help="only write the page")
    asked = parser.parse_args()
    kept = read()
    for experiment in () if asked.write else asked.experiments:
        formats = asked.formats if asked.again else lacking(kept, experiment, asked.formats)
        if formats:
            run = asked.runs.absolute() / experiment
            keep(kept, experiment, measured(experiment, run, formats))
    PAGE.write_text(with_block(PAGE.read_text(), block(kept)))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
