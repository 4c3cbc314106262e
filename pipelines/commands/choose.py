"""Chooses a network for a task under limits, with reasons.    make choose ARGS="task=detection images=300 max_params_m=10"

task=classification, detection or segmentation (or DATA=<name>, whose task and size are looked up); images=<number>;
target=edge; max_params_m, max_flops_b, max_cpu_ms, max_size_mb=<limit>; licence=<licence>. Prints a table, why each of
the next ones comes after, the command that starts from the winner, and draws figure against parameters (PNG).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tasks
from pipelines import config
from pipelines.config import Config
from pipelines.data import manifest
from pipelines.usage import UsageError, nearest
from pipelines.weights import choice, rows
from pipelines.weights.choice import Wanted
from pipelines.weights.rows import Row

LIMITS = ("max_params_m", "max_flops_b", "max_cpu_ms", "max_size_mb")
OWN = ("task", "images", "target", "licence", *LIMITS)
SHOWN = 10
PICTURE = "choice.png"


def main(overrides: Sequence[str]) -> int:
    """Takes its own words apart from Hydra's."""
    own = {}
    others = []
    for word in overrides:
        key, _, value = word.partition("=")
        if key in OWN:
            own[key] = value
        else:
            others.append(word)
    cfg = config.compose(others)
    wanted = _wanted(own, cfg)
    kept, out = choice.rank(rows.load(), wanted)
    if not kept:
        nearest_miss = "\n  ".join(f"{name}: {reason}" for name, reason in list(out.items())[:5])
        raise UsageError(f"no network keeps the limits:\n  {nearest_miss}\nraise one of them")
    _print(kept, out, wanted)
    file = Path(cfg.runs_dir, PICTURE)
    choice.draw(kept, file)
    dataset = cfg.dataset.name if cfg.dataset else ""
    print(f"figure against parameters: {file}\nstart from it: {kept[0].command(dataset)}")
    return 0


def _wanted(own: dict[str, str], cfg: Config) -> Wanted:
    if cfg.dataset is not None:
        own = {**_of_data(cfg), **own}
    task = own.get("task", "")
    if task not in rows.NETWORKS:
        raise UsageError(
            f"task: say task=<task> or DATA=<name>{nearest(task, list(rows.NETWORKS))}"
        )
    limits = {name: _number(own, name) for name in LIMITS}
    if own.get("target") == "edge" and limits["max_params_m"] is None:
        limits["max_params_m"] = choice.EDGE
    elif own.get("target") not in (None, "edge", "server"):
        raise UsageError(f"target: {own['target']!r} is none of edge, server")
    images = _number(own, "images")
    count = None if images is None else int(images)
    return Wanted(task, count, licence=own.get("licence"), **limits)


def _of_data(cfg: Config) -> dict[str, Any]:
    """Task and number of images of the user's data, as far as they are built."""
    dataset = config.given_dataset(cfg)
    looked_up = {"task": dataset.task}
    version = tasks.load(dataset.task).VERSION
    data = manifest.find(cfg.data_dir, dataset, version)
    if data is None:
        print(
            f"the data are not built yet, so their number is not known: make data DATA={dataset.name}"
        )
    else:
        looked_up["images"] = str(data.splits["train"].examples)
    return looked_up


def _number(own: dict[str, str], name: str) -> float | None:
    if name not in own:
        return None
    try:
        return float(own[name])
    except ValueError:
        raise UsageError(f"{name}: {own[name]!r} is no number") from None


def _print(kept: list[Row], out: dict[str, str], wanted: Wanted) -> None:
    titles = f"{'':<46} {'figure':>14} {'M params':>9} {'B ops':>6} {'px':>5} {'MB':>5} {'CPU ms':>7}  licence"
    print(titles)
    for row in kept[:SHOWN]:
        figure = f"{row.metric} {row.value:.1f}" if row.value else "-"
        print(
            f"{row.model[:46]:<46} {figure:>14} {row.params_m:>9} {_cell(row.flops_b):>6} "
            f"{_cell(row.input_size):>5} {_cell(row.size_mb):>5} {_cell(row.cpu_ms):>7}  {row.licence}"
        )
    winner = kept[0]
    print(f"first: {winner.model}: {_why(winner, wanted)}")
    for row in kept[1:SHOWN]:
        print(f"  after it: {row.model}: {wanted.reason(winner, row)}")
    print(
        f"{len(kept)} keep the limits, {len(out)} do not; figures are published, none was measured here"
    )


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)


def _why(winner: Row, wanted: Wanted) -> str:
    if winner.init and wanted.images is not None and wanted.images < choice.FEW:
        return f"its weights are here, and {wanted.images} images are few to start without any"
    return f"the highest figure under the limits ({winner.source})"
