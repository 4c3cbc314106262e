"""The published recipes as a table: what their files state, beside what upstream publishes of model and schedule.

Nothing is composed: 132 compositions take 13 s, reading their files a tenth of one.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import yaml

from pipelines import config
from pipelines.usage import UsageError, nearest

FOLDER = config.FOLDER / "experiment" / "published"
FACTS = config.FOLDER / "published.yaml"
FORMATS = ("table", "csv", "json")
DESCENDING = ("value",)  # the best first; all others: the least first
ABSENT = "-"
# The hardware that hours are estimated on, and what it was seen to do: ResNet-50 in mixed precision with XLA, 224 px, 17,400
# images a second (NVIDIA/DeepLearningExamples, TensorFlow/Classification/ConvNets/resnet50v1.5/README.md), 4.1 billion
# multiply-adds each. That is 17% of the 312 TFLOP/s that each of the eight promises.
ESTIMATED_ON = "8 NVIDIA A100 40GB"
PASSES = 3  # forward, and backward for as much as two of them
MULTIPLY_ADDS_B_A_SECOND = PASSES * 17_400 * 4.1
ESTIMATE = "estimate: "
AT_LEAST = "estimate, at least: "
# Models of depthwise convolutions wait for memory, so that they reach a fraction of what ResNet-50 does.
DEPTHWISE = ("Mobile", "MoViNet", "MaxViT")
LEGEND = (
    f"~ hours: estimated, measured by nobody, on {ESTIMATED_ON}: 3 x FLOPs x batch x steps at the rate that NVIDIA",
    "  publishes for ResNet-50 there (17,400 images/s, 17% of the peak). > the same, and more: depthwise convolutions are slower.",
)


@dataclass(frozen=True)
class Recipe:
    """One row; None is what no source says.

    Attributes:
        value: of `metric`, in percent, as upstream publishes it.
        parameters_m: millions, published; else counted where the model was built.
        flops_b: billions of multiply-adds, published; of a video, for all of it.
        hours: on `hardware`; what upstream says, or an estimate, as `hours_source` tells.
    """

    name: str
    task: str
    data: str
    model: str
    metric: str | None
    value: float | None
    parameters_m: float | None
    flops_b: float | None
    input_size: str
    steps: int
    batch: int
    epochs: float | None
    hours: float | None
    hardware: str | None
    hours_source: str | None


COLUMNS = tuple(column.name for column in fields(Recipe))
SHORT = {  # columns of the printed table, with their titles
    "name": "EXP=published/…",
    "metric": "metric",
    "value": "percent",
    "parameters_m": "M params",
    "flops_b": "B FLOPs",
    "input_size": "input",
    "epochs": "epochs",
    "steps": "steps",
    "batch": "batch",
    "hours": "hours",
}


def names() -> list[str]:
    """Every recipe, as `experiment=` chooses it."""
    files = sorted(FOLDER.glob("*/*.yaml"))
    return [f"published/{file.parent.name}/{file.stem}" for file in files]


def load() -> list[Recipe]:
    """Every recipe."""
    facts = _read(FACTS.read_text())
    return [_recipe(name, facts[name.removeprefix("published/")]) for name in names()]


def _read(text: str) -> dict[str, Any]:
    # The parser in C, where PyYAML has it: ten times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(text, loader)


def _recipe(name: str, facts: Mapping[str, Any]) -> Recipe:
    short = name.removeprefix("published/")
    text = (FOLDER / f"{short}.yaml").read_text()
    # A figure is the last node: what stands above it takes most of the time to read.
    _, _, figure_text = text.partition("\nfigure:\n")
    figure = _read(f"figure:\n{figure_text}")["figure"] or {}
    value = figure.get("value")
    if "hours" not in facts:
        facts = {**facts, **_estimated(facts)}
    return Recipe(
        name=short,
        data=short.partition("/")[0],
        metric=figure.get("metric"),
        value=None if value is None else round(100 * value, 4),
        parameters_m=facts.get("parameters_m", facts.get("counted_m")),
        input_size="x".join(str(edge) for edge in facts["input_size"]),
        **{key: facts.get(key) for key in _AS_THEY_ARE},  # type: ignore[arg-type]
    )


def _estimated(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The hours that a training would take if the hardware did as well on its model as it does on ResNet-50."""
    if facts.get("flops_b") is None:
        return {}
    work = PASSES * facts["flops_b"] * facts["batch"] * facts["steps"]
    hours = work / MULTIPLY_ADDS_B_A_SECOND / 3600
    word = AT_LEAST if any(name in facts["model"] for name in DEPTHWISE) else ESTIMATE
    product = f"{PASSES} x {facts['flops_b']:g} B x {facts['batch']} x {facts['steps']} steps"
    return {
        "hours": float(f"{hours:.2g}"),
        "hardware": ESTIMATED_ON,
        "hours_source": f"{word}{product} at {MULTIPLY_ADDS_B_A_SECOND:.0f} B/s, as seen of ResNet-50",
    }


_AS_THEY_ARE = (
    "task",
    "model",
    "flops_b",
    "steps",
    "batch",
    "epochs",
    "hours",
    "hardware",
    "hours_source",
)


def chosen(recipes: Sequence[Recipe], wanted: Mapping[str, str]) -> list[Recipe]:
    """The recipes that have these values, such as `task=detection`.

    Raises:
        UsageError: none has, or there is no such column.
    """
    left = list(recipes)
    for column, value in wanted.items():
        _refuse_unknown(column)
        there = sorted({_cell(recipe, column) for recipe in left})
        left = [recipe for recipe in left if _cell(recipe, column) == value]
        if not left:
            raise UsageError(f"{column}: no recipe has {value!r}{nearest(value, there)}")
    return left


def ordered(recipes: Sequence[Recipe], column: str) -> list[Recipe]:
    """The recipes by a column: figures from the best, all else from the least; those without come last."""
    _refuse_unknown(column)
    have = [recipe for recipe in recipes if getattr(recipe, column) is not None]
    without = [recipe for recipe in recipes if getattr(recipe, column) is None]
    have.sort(key=lambda recipe: getattr(recipe, column), reverse=column in DESCENDING)
    return have + without


def _refuse_unknown(column: str) -> None:
    if column not in COLUMNS:
        raise UsageError(f"list: there is no column {column!r}{nearest(column, COLUMNS)}")


def _cell(recipe: Recipe, column: str) -> str:
    value = getattr(recipe, column)
    if value is None:
        return ABSENT
    return f"{value:g}" if isinstance(value, float) else str(value)


def as_text(recipes: Sequence[Recipe]) -> str:
    """The table for a terminal."""
    rows = [list(SHORT.values())]
    for recipe in recipes:
        rows.append([_sign(recipe, column) + _cell(recipe, column) for column in SHORT])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return "\n".join([*lines, *_sources(recipes)])


def _sign(recipe: Recipe, column: str) -> str:
    """What stands before hours that nobody has measured: `~` about, `>` at least."""
    source = recipe.hours_source or ""
    if column != "hours" or not source.startswith("estimate"):
        return ""
    return ">" if source.startswith(AT_LEAST) else "~"


def _sources(recipes: Sequence[Recipe]) -> list[str]:
    """What the hours are of."""
    stated = []
    is_any_estimated = False
    for recipe in recipes:
        if _sign(recipe, "hours"):
            is_any_estimated = True
        elif recipe.hours is not None:
            told = f"{recipe.hours:g} h on {recipe.hardware}, {recipe.hours_source}"
            stated.append(f"  {recipe.name}: {told}")
    lines = ["hours, as upstream says them:", *stated] if stated else []
    return [*lines, *LEGEND] if is_any_estimated else lines


def as_csv(recipes: Sequence[Recipe]) -> str:
    """One line a recipe, all columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(recipe) for recipe in recipes)
    return text.getvalue().rstrip("\n")


def as_json(recipes: Sequence[Recipe]) -> str:
    """A list of objects, all columns."""
    return json.dumps([asdict(recipe) for recipe in recipes], indent=1)


def answer(words: Mapping[str, str]) -> str:
    """The table that `trellis list published <column>=<value> sort=<column> format=<format>` asks for.

    Raises:
        UsageError: a column, value or format that there is not.
    """
    wanted = dict(words)
    form = wanted.pop("format", "table")
    column = wanted.pop("sort", "name")
    writers = {"table": as_text, "csv": as_csv, "json": as_json}
    if form not in writers:
        raise UsageError(f"format: {form!r}{nearest(form, FORMATS)}")
    return writers[form](ordered(chosen(load(), wanted), column))
