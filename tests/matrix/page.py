"""docs/catalogue.md, drawn from the record."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.system import durable

# The rows measured with graphs rewritten as TensorFlow does before it runs them; earlier measurements ran them as traced.
REWRITTEN = "rewritten"
FILE = Path(__file__).parent.parent.parent / "docs" / "catalogue.md"
HEADER = """# The catalogue: every official vision experiment

Model Garden's wheel holds {count} vision experiments in the version that is locked here: {summary}. This page and `make list ARGS=all` show
what `make test-matrix` measured of each. It writes both; neither is written by hand.

    make train EXP=catalogue/yolov7                     a small form of it, on embedded data
    make train EXP=resnet_imagenet                      the same by its official name, where no recipe of ours has that name
    make train DATA=coco ARGS="garden=coco_yolov7 dataset.images=… dataset.annotations=…"   the official settings, on your data

- **The small form** is one file, `conf/experiment/catalogue/<name>.yaml`: the official experiment with a small backbone, small pictures and
  one epoch of an embedded data set. It is there to try a model, not to reach a figure. `make show EXP=catalogue/yolov7` prints one.
- A recipe of ours with a figure (`make list`) is another thing. Families that have none yet: DETR (`catalogue/detr_coco`). The official
  evaluation held fractions of a picture against pixels, so that AP was 0 whatever had been learned, until that was mended; ResNet's batch norm,
  which the official settings hold still (`bn_trainable`), has to learn where the start is random. With both it
  fits what it is shown (ResNet-10 to a stride of 16, one encoding and three decoding layers, 12 queries of width 128; 64 embedded scenes of 128
  pixels: loss 2.1 after 250 steps, Adam at 0.0003, dropout taken out), but was not seen to learn all 4,000: after 750 steps of AdamW at 0.001 (4.6 min,
  shared) AP was 0.0003 and the loss near 14.3 since step 300; Adam at 0.0003 had 13.7 after 600, falling by its boxes alone; batches of 8 without an
  encoder stayed at 9.8 (two decoding layers) from step 300 to 500. AdamW at 0.0004 was given what ten minutes on two idle cores hold, of 4,000 steps of 0.27 CPU
  seconds: its loss fell from 16 to 10.6, and AP was 0.003 after 1,000 steps, 0.003 after 2,000 and 0.009 after 3,000; it was ended at 3,280. So it cannot be
  learned in ten minutes from a random start, and a trained backbone that fits (its settings know ResNet alone) is not at hand. Its reader mirrors half of the pictures and enlarges half to 400 to 600 pixels to crop
  them, neither of which a setting switches off.
- **The official settings** are the experiment as it is registered: `garden=<name>`, without `EXP`. They are made for many accelerators; set
  what differs for you, as in `task.train_data.global_batch_size=16 scale_learning_rate=256`.
- A project's modules are imported when one of its experiments is asked for; `imports` is not needed for them.

Names as Model Garden writes them, each typed as `make train EXP=<name> ARGS=trainer.train_steps=3` on two cores of an AMD EPYC (family 25 model 17) that
other work used all the time, so that the seconds are upper bounds. *To step 3* is data, set-up and three steps with their tracing, as each run
records them, without what comes before and after; the three steps come as one block, so that the first alone was not timed. The loss is the mean of the three.

| name | to step 3 | loss | whole command |
|---|---|---|---|
| `resnet_imagenet` | 12 s, data built | 2.63 | 19 s |
| `mobilenet_imagenet` | 6 s | 2.54 | 13 s |
| `deit_imagenet_pretrain` | 18 s | 2.30 | 39 s |
| `retinanet_resnetfpn_coco` | 29 s | 2.13 | 83 s |
| `retinanet_mobile_coco` | 46 s | 1.97 | 86 s |
| `maskrcnn_resnetfpn_coco` | 98 s | 9.09 | 349 s, of which 219 s evaluate 200 scenes |
| `seg_deeplabv3plus_cityscapes` | 196 s | 3.81 | 329 s |
| `coco_yolov7` | 272 s | 1.41 | 642 s, of which 315 s evaluate 200 scenes |
| `video_classification_kinetics400` | 61 s, data built | 3.63 | 127 s |
| `seg_deeplabv3_pascal` | 419 s, in which it was halted for some six minutes (119 s on another day) | 3.82 | 650 s, of which 102 s evaluate 200 scenes |

## What *works* means

On tiny data (24 pictures, clips or volumes to train on, 10 to validate on, brought as a user brings his own), in two processes: composed, built, trained three
steps in which the weights moved, ended by SIGKILL before the last step was saved, resumed from the step before, evaluated: the resumed
training has the very weights of the undisturbed one. Then a SavedModel and a TFLite file are written, or refused with a reason; one that
is neither would not count as working. *Exports* are written, not held against the checkpoint, which `make export` does. Everything is as in `make train`. No accelerator was there.

What TensorFlow makes of a graph before it runs it (fused, folded, pruned) counts too: on a CPU with oneDNN it fused batch norm and Mish, for which there
is no kernel, so that a YOLO with Mish trained and could not be evaluated, until that was mended. Earlier measurements ran graphs as traced and
could not see such a thing. {rewritten} of the {working} that work are measured with it on; a star marks them. CI's samples, below, have it on whatever they
try. It costs nothing that shows (105, 93 and 141 CPU seconds against 102, 95 and 151 for three of them).

With every commit CI tries one or two of them again, so that any eleven commits in a row reach each family (what shares no code: project and
task). Those that take over 50 CPU seconds are then composed, built and trained three steps, without what follows.

## Repairs

Five projects need repairs (`pipelines/training/projects.py`; tested by name, DETR's variables and what video_ssl needs by the catalogue alone): YOLO writes padding to place -1 and CenterNet reads from there,
which accelerators ignore and a CPU refuses; DETR creates its variables in its first step, too late to be restored, its
evaluation takes fractions of a picture for pixels, and its first version reads nothing but TFDS; the quantizer stops at heads that are
called with dictionaries; the linear evaluation on clips has 600 outputs whatever its data, and the pretraining on clips no evaluation (it gets the one of
its own loss and figures, on other clips). With mosaics (the official YOLO settings) a training is repeatable, and not exactly resumable: docs/determinism.md.

## Status

| experiment | project | status | exports | CPU s | peak MB |
|---|---|---|---|---|---|
"""


def write(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Draws the page."""
    durable.write_whole(FILE, text(rows))


def text(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The page."""
    statuses = Counter(row["status"] for row in rows.values())
    summary = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    working = [row for row in rows.values() if row["status"] == "works"]
    rewritten = [row for row in working if row.get(REWRITTEN)]
    header = HEADER.format(
        count=len(rows), summary=summary or "none measured", working=len(working), rewritten=len(rewritten)
    )  # fmt: skip
    lines = [_line(name, row) for name, row in rows.items()]
    told = [f"- {', '.join(names)}: {why}" for why, names in _refusals(rows).items()]
    return "\n".join([header + "\n".join(lines), "", *_section("Not exported, and why", told)])


def _line(name: str, row: Mapping[str, Any]) -> str:
    answers = row.get("exports") or {}
    written = ", ".join(form for form, answer in answers.items() if answer == "ok")
    if not written and answers:
        is_refused = all(answer.startswith("refused") for answer in answers.values())
        written = "refused" if is_refused else "an error, which is to be measured again"
    why = f": {_cell(row['why'])}" if row.get("why") else ""
    star = "*" if row.get(REWRITTEN) else ""
    cost = f"{row.get('cpu_s', '')} | {row.get('peak_mb', '')}"
    status = f"{row['status']}{star}{why}"
    return f"| `{name}` | {row.get('project', '')} | {status} | {written} | {cost} |"


def _refusals(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Why a format is not written, with the experiments of which it is not."""
    experiments: dict[str, list[str]] = {}
    for name, row in rows.items():
        forms: dict[str, list[str]] = {}
        for form, answer in (row.get("exports") or {}).items():
            if answer != "ok":
                forms.setdefault(_cell(answer), []).append(form)
        for answer, lacking in forms.items():
            why = f"{' and '.join(lacking)} {answer.replace(f'catalogue_{name}', '<experiment>')}"
            experiments.setdefault(why, []).append(f"`{name}`")
    return experiments


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def _cell(words: Any) -> str:
    return " ".join(str(words).split()).replace("|", "\\|")
