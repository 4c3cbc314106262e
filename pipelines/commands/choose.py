"""Chooses a network for a task under limits, with reasons.    make choose ARGS="task=detection images=300 max_params_m=10"

task=classification, detection or segmentation (or DATA=<name>: its pictures are looked at); images=<number>;
target=edge; max_params_m, max_flops_b, max_cpu_ms, max_size_mb=<limit>; licence=<licence>. --measure, or measure=<number>,
runs the first networks on this machine, max_ms and max_memory_mb=<limit> keep those that are fast and small enough here.
Prints a table, why each of the next ones comes after, the command that starts from the winner, and draws figure against
parameters (PNG).
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import tasks
from pipelines import assembly, config
from pipelines.config import Config
from pipelines.data import manifest
from pipelines.data.manifest import Manifest
from pipelines.usage import UsageError, nearest
from pipelines.weights import cards, choice, rows
from pipelines.weights.choice import Wanted
from pipelines.weights.rows import Row

LIMITS_HERE = ("max_ms", "max_memory_mb")  # kept by what is measured on this machine
LIMITS = ("max_params_m", "max_flops_b", "max_cpu_ms", "max_size_mb", *LIMITS_HERE)
OWN = ("task", "images", "target", "licence", "measure", *LIMITS)
SHOWN = 10
COLUMNS = (
    f"{'figure':>61} {'M params':>9} {'B ops':>6} {'px':>5} {'MB':>6} "
    f"{'CPU ms':>7} {'here':>6} {'memory':>6}  licence"
)
# How pictures of one's own are most often brought, by task: the data set, and what it has to be told.
OWN_DATA = {
    "classification": ("image_folder", ["dataset.images=<folder>"]),
    "detection": ("voc", ["dataset.root=<folder>", "dataset.labels=[<class>,…]"]),
    "segmentation": (
        "mask_folder",
        ["dataset.images=<folder>", "dataset.masks=<folder>", "dataset.labels=[<class>,…]"],
    ),
}
MEASURED = "5"  # networks that --measure times
PICTURE = "choice.png"


def main(overrides: Sequence[str]) -> int:
    """Takes its own words apart from Hydra's."""
    own = {}
    others = []
    for word in overrides:
        key, _, value = word.removeprefix("--").partition("=")
        if key in OWN:
            own[key] = value
        else:
            others.append(word)
    cfg = config.compose(others)
    data = _data(cfg)
    wanted = _wanted(own, cfg, data)
    kept, out = _ranked(own, wanted)
    if not kept:
        nearest_miss = "\n  ".join(f"{name}: {reason}" for name, reason in list(out.items())[:5])
        raise UsageError(f"no network keeps the limits:\n  {nearest_miss}\nraise one of them")
    _print(kept, out, wanted)
    if data is not None:
        _print_notes(data, kept[0])
    file = Path(cfg.runs_dir, PICTURE)
    choice.draw(kept, file)
    dataset = cfg.dataset.name if cfg.dataset else ""
    places = [word for word in others if word.startswith(("dataset.", "data_dir="))]
    command = kept[0].command(dataset, places)
    print(f"figure against parameters: {file}\nstart from it: {command}")
    if not dataset:
        with_own = kept[0].command(*OWN_DATA[wanted.task])
        print(f"that is on the data of its experiment; on pictures of your own: {with_own}")
    return 0


def _ranked(own: dict[str, str], wanted: Wanted) -> tuple[list[Row], dict[str, str]]:
    """The networks in order, the first of them measured where that is asked for; and why the others are out."""
    every = rows.load()
    if not {"measure", *LIMITS_HERE} & own.keys():
        return choice.rank(every, wanted)
    asked = {"measure": own.get("measure") or MEASURED}
    count = int(_number(asked, "measure") or 0)
    otherwise = replace(wanted, max_ms=None, max_memory_mb=None)
    likely, _ = choice.rank(every, otherwise)
    timed = {row.name: _timed(row) for row in likely[:count]}
    known = [timed.get(row.name, row) for row in every]
    return choice.rank(known, wanted)


def _timed(row: Row) -> Row:
    """The row with what one picture takes and needs here."""
    # In one process, what a network before it has left would be used again, and not be counted.
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=spawn) as alone:
            asked = alone.submit(_cost, row.words())
            spent, memory, size = asked.result()
    except UsageError as error:
        print(f"{row.model} is not measured: {error}")
        return row
    print(
        f"measured {row.model}: {spent:.1f} ms and {_cell(memory)} MB of memory a picture at {size}",
        flush=True,
    )
    return replace(row, here_ms=round(spent, 1), memory_mb=memory)


def _cost(words: list[str]) -> tuple[float, int | None, str]:
    """Milliseconds and MB for one picture, and its size; plain values, so that who asks imports no TensorFlow."""
    from pipelines.training import timing  # TensorFlow: 10 s.

    cfg = config.compose(words)
    params = assembly.resolved(cfg)
    cost = timing.forward(params)
    height, width, *_ = assembly.input_size(params)
    return cost.ms, cost.memory_mb, f"{height}x{width}"


def _data(cfg: Config) -> Manifest | None:
    """The user's data, as far as they are built."""
    if cfg.dataset is None:
        return None
    dataset = config.given_dataset(cfg)
    data = manifest.find(cfg.data_dir, dataset, tasks.load(dataset.task).VERSION)
    if data is None:
        print(
            f"the data are not built yet, so their number is not known: make data DATA={dataset.name}"
        )
    return data


def _print_notes(data: Manifest, winner: Row) -> None:
    """Says what of the data speaks for or against weights that learned from photographs."""
    model = config.compose(winner.words()).task.get("model") or {}
    stated = model.get("input_size") or [winner.input_size or 0]
    learned = cards.load(winner.init).input_size if winner.init else 0
    for note in assembly.notes(data, model, stated[0], learned):
        print(f"your data: {note}")


def _wanted(own: dict[str, str], cfg: Config, data: Manifest | None) -> Wanted:
    if cfg.dataset is not None:
        own = {"task": config.given_dataset(cfg).task, **own}
    if data is not None:
        own = {"images": str(data.splits["train"].examples), **own}
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


def _number(own: dict[str, str], name: str) -> float | None:
    if name not in own:
        return None
    try:
        return float(own[name])
    except ValueError:
        raise UsageError(f"{name}: {own[name]!r} is no number") from None


def _print(kept: list[Row], out: dict[str, str], wanted: Wanted) -> None:
    print(COLUMNS)
    for row in kept[:SHOWN]:
        _print_row(row)
    winner = kept[0]
    print(f"first: {winner.model}: {_why(winner, wanted)}")
    for row in kept[1:SHOWN]:
        print(f"  after it: {row.model}: {wanted.reason(winner, row)}")
    print(
        f"{len(kept)} keep the limits, {len(out)} do not; figures and times are published, none was measured here but those "
        "of the columns `here` and `memory`: ms and MB for one picture, random weights, a busy machine is slower; MB is of the "
        "published file, or of all parameters in float32"
    )


def _print_row(row: Row) -> None:
    figure = f"{row.metric} {row.value:.1f}" if row.value else "-"
    costs = (
        (row.params_m, 9),
        (row.flops_b, 6),
        (row.input_size, 5),
        (row.size_mb, 6),
        (row.cpu_ms, 7),
        (row.here_ms, 6),
        (row.memory_mb, 6),
    )
    cells = [_cell(value).rjust(width) for value, width in costs]
    shown = row.model[:46].ljust(46)
    print(shown, figure.rjust(14), *cells, "", row.licence)


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)


def _why(winner: Row, wanted: Wanted) -> str:
    if winner.init and wanted.images is not None and wanted.images < choice.FEW:
        return f"its weights are here, and {wanted.images} images are few to start without any"
    return f"the highest figure under the limits ({winner.source})"
