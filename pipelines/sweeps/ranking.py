"""The ranking of a sweep: trials that differ in nothing but the seed are one row, with mean and spread.

Ranked are rows whose every seed has finished. A seed that failed says something too: the mean of those that survived
would rank settings by their luck. The other rows follow below, with how many are missing.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.sweeps.commandline import make
from pipelines.sweeps.trials import Trial, brief, label, short

MOST_ROWS = 25  # of the picture and the table on screen; ranking.csv has them all
MOST_PANELS = 3
MOST_TICKS = 6


@dataclass(frozen=True)
class Row:
    """Settings and the finished trials that had them, the best first; `missing` others have not finished."""

    settings: dict[str, Any]
    trials: tuple[Trial, ...]
    missing: int = 0

    @property
    def values(self) -> list[float]:
        """The results, one a seed."""
        return [float(trial.value or 0) for trial in self.trials]

    @property
    def mean(self) -> float:
        """What rows are ranked by."""
        return sum(self.values) / len(self.values)

    @property
    def best(self) -> Trial:
        """The trial with the best result."""
        return self.trials[0]

    @property
    def label(self) -> str:
        """The settings in one line."""
        return label(self.settings)


def rank(trials: Sequence[Trial], goal: str) -> list[Row]:
    """Rows of settings that any trial has finished with, the best first; those that lack trials after all others."""
    sign = -1 if goal == "maximize" else 1
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(repr(_settings(trial)), []).append(trial)
    rows = [row for group in groups.values() if (row := _row(group, sign)).trials]
    return sorted(rows, key=lambda row: (row.missing > 0, sign * row.mean))


def winner(rows: Sequence[Row]) -> Row | None:
    """The best of the rows that lack nothing."""
    return rows[0] if rows and not rows[0].missing else None


def _row(group: Sequence[Trial], sign: int) -> Row:
    finished = [trial for trial in group if trial.state == "finished"]
    best_first = sorted(finished, key=lambda trial: sign * float(trial.value or 0))
    return Row(_settings(group[0]), tuple(best_first), len(group) - len(finished))


def as_csv(rows: Sequence[Row]) -> str:
    """All rows: place, figures, settings, the best trial's run."""
    names = list(dict.fromkeys(name for row in rows for name in row.settings))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "rank",
            "metric",
            "mean",
            "min",
            "max",
            "trials",
            "missing",
            *names,
            "best_run_dir",
            "best_mlflow_run_id",
        ]
    )
    for place, row in enumerate(rows, start=1):
        best = row.best
        spread = [row.mean, min(row.values), max(row.values), len(row.values), row.missing]
        figures = ["" if row.missing else place, best.metric, *spread]
        writer.writerow(
            [*figures, *(row.settings.get(name, "") for name in names), best.run_dir, best.run_id]
        )
    return text.getvalue()


def as_text(rows: Sequence[Row]) -> str:
    """The best rows as an aligned table, rows without a rank at its end."""
    if not rows:
        return "no trial has finished"
    names = list(dict.fromkeys(name for row in rows for name in row.settings))
    seeds = any(len(row.trials) + row.missing > 1 for row in rows)
    head = [
        "rank",
        rows[0].best.metric,
        *(["min .. max", "trials"] if seeds else []),
        *map(short, names),
        "run",
    ]
    lines = [head]
    for place, row in enumerate(rows[:MOST_ROWS], start=1):
        spread = [f"{min(row.values):.4f} .. {max(row.values):.4f}", _count(row)] if seeds else []
        settings = [brief(row.settings[name]) if name in row.settings else "" for name in names]
        standing = "-" if row.missing else str(place)
        lines.append([standing, f"{row.mean:.4f}", *spread, *settings, row.best.run_dir.name])
    table = "\n".join(_aligned(lines))
    more = len(rows) - MOST_ROWS
    return table + (f"\n… and {more} more in ranking.csv" if more > 0 else "")


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def _count(row: Row) -> str:
    count = len(row.trials)
    return f"{count}, {row.missing} of {count + row.missing} missing" if row.missing else str(count)


def as_summary(trials: Sequence[Trial], rows: Sequence[Row]) -> dict[str, Any]:
    """What the sweep's `summary.json` says: the headline, the best and how to train it again, and every trial."""
    first = winner(rows)
    best = first.best if first else None
    return {
        "headline": {
            "metric": best.metric if best else None,
            "value": first.mean if first else None,
        },
        "best": {
            "settings": best.settings,
            "command": make("train", best.recipe),
            "run_dir": best.run_dir,
        }
        if best
        else None,
        "trials": [
            {
                "settings": trial.settings,
                "state": trial.state,
                "value": trial.value,
                "reason": trial.reason,
                "seconds": trial.seconds,
                "run_dir": trial.run_dir,
                "mlflow_run_id": trial.run_id,
                "identity": trial.identity,
            }
            for trial in trials
        ],
    }


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draws the ranking, and the metric over each numeric parameter that took several values."""
    # Imported here: it takes a second, and a sweep draws once.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    numeric = _numeric(rows)[:MOST_PANELS]
    shown = list(rows[:MOST_ROWS])
    metric = rows[0].best.metric
    figure = Figure(
        figsize=(6.5 + 4 * len(numeric), max(3.6, 1.6 + 0.32 * len(shown))),
        layout="constrained",
        dpi=110,
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        1, 1 + len(numeric), squeeze=False, width_ratios=[1.5, *[1] * len(numeric)]
    )[0]
    places = range(len(shown))
    for place, row in enumerate(shown):
        colour = "tab:gray" if row.missing else "tab:orange" if place == 0 else "tab:blue"
        panels[0].plot(
            [min(row.values), max(row.values)], [place, place], color=colour, alpha=0.4, linewidth=4
        )
        panels[0].plot(
            row.values, [place] * len(row.values), "o", color=colour, alpha=0.6, markersize=5
        )
        panels[0].plot([row.mean], [place], "|", color=colour, markersize=16, markeredgewidth=2.5)
        beside = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
        panels[0].annotate(f"{row.mean:.4f}", (max(row.values), place), **beside)
    panels[0].set_yticks(places, [_shortened(row.label) for row in shown], fontsize=8)
    panels[0].set_ylim(len(shown) - 0.4, -0.6)
    panels[0].margins(x=0.18)
    panels[0].set_xlabel(metric)
    for panel, name in zip(panels[1:], numeric, strict=True):
        points = [
            (row.settings[name], value)
            for row in rows
            for value in row.values
            if name in row.settings
        ]
        whole = [row for row in rows if not row.missing and name in row.settings]
        means = sorted((row.settings[name], row.mean) for row in whole)
        if len(_varied(rows)) == 1:
            panel.plot(
                [x for x, _ in means], [y for _, y in means], "-", color="tab:blue", alpha=0.5
            )
        panel.plot(
            [x for x, _ in points],
            [y for _, y in points],
            "o",
            color="tab:blue",
            alpha=0.6,
            markersize=5,
        )
        if winner(rows) and rows[0].settings.get(name) is not None:
            panel.plot(
                [rows[0].settings[name]], [rows[0].mean], "o", color="tab:orange", markersize=8
            )
        xs = [x for x, _ in points]
        if min(xs) > 0 and max(xs) / min(xs) >= 8:
            panel.set_xscale("log")
        if (
            len(set(xs)) <= MOST_TICKS
        ):  # The values themselves: on a short logarithmic axis matplotlib's labels overlap.
            panel.minorticks_off()
            panel.set_xticks(sorted(set(xs)), [brief(x) for x in sorted(set(xs))], fontsize=8)
        panel.set_xlabel(short(name))
        panel.set_ylabel(metric)
    for panel in panels:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path)


def _settings(trial: Trial) -> dict[str, Any]:
    return {name: value for name, value in trial.settings.items() if name != "seed"}


def _varied(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row.settings)
    return [name for name in names if len(_different(rows, name)) > 1]


def _different(rows: Sequence[Row], name: str) -> set[str]:
    return {repr(row.settings.get(name)) for row in rows}


def _numeric(rows: Sequence[Row]) -> list[str]:
    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    return [
        name
        for name in _varied(rows)
        if all(number(row.settings[name]) for row in rows if name in row.settings)
    ]


def _shortened(label: str, most: int = 52) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
