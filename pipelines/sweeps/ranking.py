"""The ranking of a sweep: trials that differ in nothing but the seed are one row, with mean and spread.

Ranked are rows whose every seed has finished. A seed that failed says something too: the mean of those that survived
would rank settings by their luck. The other rows follow below, with how many are missing.
"""

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.sweeps.labels import brief, label, short
from pipelines.sweeps.trial import Trial
from pipelines.usage import make_command

MOST_ROWS = 25  # in the picture and the table on screen; ranking.csv has them all
COLUMNS = (
    "rank",
    "metric",
    "mean",
    "min",
    "max",
    "trials",
    "missing",
    "tied",
)  # before the settings


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
    rows = [_row(group, sign) for group in groups.values()]
    ranked = [row for row in rows if row.trials]
    return sorted(
        ranked,
        key=lambda row: (row.missing > 0, sign * row.mean),
    )


def parameters(rows: Sequence[Row]) -> list[str]:
    """Names of all parameters, in order."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row.settings))
    return list(names)


def winner(rows: Sequence[Row]) -> Row | None:
    """The best of the rows that lack nothing."""
    if not rows or rows[0].missing:
        return None
    return rows[0]


def _row(group: Sequence[Trial], sign: int) -> Row:
    finished = [trial for trial in group if trial.state == "finished"]
    best_first = sorted(finished, key=lambda trial: sign * float(trial.value or 0))
    missing = len(group) - len(finished)
    return Row(_settings(group[0]), tuple(best_first), missing)


def as_csv(rows: Sequence[Row], tied: Collection[int] = ()) -> str:
    """All rows: place, figures, settings, the best trial's run.

    Args:
        tied: positions, from 0, of rows that cannot be told from the first.
    """
    names = parameters(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *names, "best_run_dir", "best_mlflow_run_id"])
    for position, row in enumerate(rows, start=1):
        rank = "" if row.missing else position
        spread = [
            row.mean,
            min(row.values),
            max(row.values),
            len(row.values),
            row.missing,
            "=" if position - 1 in tied else "",
        ]
        settings = [row.settings.get(name, "") for name in names]
        run = [row.best.run_dir, row.best.run_id]
        cells = [rank, row.best.metric, *spread, *settings, *run]
        writer.writerow(cells)
    return text.getvalue()


def as_text(rows: Sequence[Row], tied: Collection[int] = ()) -> str:
    """The best rows as an aligned table, rows without a rank at its end.

    Args:
        tied: positions, from 0, of rows that cannot be told from the first; they are marked `=`.
    """
    if not rows:
        return "no trial has finished"
    names = parameters(rows)
    seeds = any(len(row.trials) + row.missing > 1 for row in rows)
    spread = ["min .. max", "trials"] if seeds else []
    lines = [
        [
            "rank",
            rows[0].best.metric,
            *spread,
            *map(short, names),
            "run",
        ]
    ]
    for position, row in enumerate(rows[:MOST_ROWS], start=1):
        if seeds:
            low = min(row.values)
            high = max(row.values)
            spread = [f"{low:.4f} .. {high:.4f}", _count(row)]
        settings = [brief(row.settings.get(name, "")) for name in names]
        mark = "=" if position - 1 in tied else ""
        rank = "-" if row.missing else f"{position}{mark}"
        lines.append(
            [
                rank,
                f"{row.mean:.4f}",
                *spread,
                *settings,
                row.best.run_dir.name,
            ]
        )
    table = "\n".join(_aligned(lines))
    more = len(rows) - MOST_ROWS
    return f"{table}\n… and {more} more in ranking.csv" if more > 0 else table


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    columns = zip(*lines, strict=True)
    widths = [max(map(len, column)) for column in columns]
    padded = [map(str.ljust, line, widths) for line in lines]
    return ["  ".join(cells).rstrip() for cells in padded]


def _count(row: Row) -> str:
    count = len(row.trials)
    if not row.missing:
        return str(count)
    return f"{count}, {row.missing} of {count + row.missing} missing"


def as_summary(trials: Sequence[Trial], rows: Sequence[Row]) -> dict[str, Any]:
    """What the sweep's `summary.json` says: the headline, the best and how to train it again, and every trial."""
    first = winner(rows)
    return {
        "headline": {
            "metric": first.best.metric if first else None,
            "value": first.mean if first else None,
        },
        "best": _best(first.best) if first else None,
        "trials": [_outcome(trial) for trial in trials],
    }


def _best(trial: Trial) -> dict[str, Any]:
    return {
        "settings": trial.settings,
        "command": make_command("train", trial.recipe),
        "run_dir": trial.run_dir,
    }


def _outcome(trial: Trial) -> dict[str, Any]:
    return {
        "settings": trial.settings,
        "state": trial.state,
        "value": trial.value,
        "reason": trial.reason,
        "seconds": trial.seconds,
        "run_dir": trial.run_dir,
        "mlflow_run_id": trial.run_id,
        "identity": trial.identity,
    }


def _settings(trial: Trial) -> dict[str, Any]:
    settings = dict(trial.settings)
    settings.pop("seed", None)
    return settings
