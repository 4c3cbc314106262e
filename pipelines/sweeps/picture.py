"""The ranking of a sweep as a picture: every row, and the metric over each numeric parameter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.sweeps.labels import brief, short
from pipelines.sweeps.ranking import MOST_ROWS, Row, parameters, winner

MOST_PANELS = 3
MOST_TICKS = 6
MOST_LABEL = 52  # characters
BEST, OTHER, UNRANKED = "tab:orange", "tab:blue", "tab:gray"
WIDE = 8  # from this ratio of highest to lowest on, an axis is logarithmic


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draws the ranking, and the metric over each numeric parameter that took several values."""
    # Imported here: it takes a second, and a sweep draws once.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = rows[:MOST_ROWS]
    numeric = _numeric(rows)[:MOST_PANELS]
    width = 6.5 + 4 * len(numeric)
    height = max(3.6, 1.6 + 0.32 * len(shown))
    drawing = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(drawing)
    ratios = [1.5, *[1] * len(numeric)]
    (panels,) = drawing.subplots(
        1,
        len(ratios),
        squeeze=False,
        width_ratios=ratios,
    )
    first, *others = panels
    _draw_rows(first, shown)
    for panel, name in zip(others, numeric, strict=True):
        _draw_parameter(panel, rows, name)
    for panel in (first, *others):
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    drawing.suptitle(title, fontsize=10)
    drawing.savefig(path)


def _draw_rows(panel: Any, rows: Sequence[Row]) -> None:
    for height, row in enumerate(rows):
        _draw_row(
            panel,
            row,
            height,
            _colour(row, height),
        )
    labels = [_shortened(row.label) for row in rows]
    panel.set_yticks(range(len(rows)), labels, fontsize=8)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.margins(x=0.18)
    panel.set_xlabel(rows[0].best.metric)


def _colour(row: Row, position: int) -> str:
    if row.missing:
        return UNRANKED
    return BEST if position == 0 else OTHER


def _draw_row(panel: Any, row: Row, height: int, colour: str) -> None:
    """The spread as a bar, each seed as a dot, the mean as a stroke with its figure beside it."""
    low = min(row.values)
    high = max(row.values)
    heights = [height] * len(row.values)
    panel.plot(
        [low, high],
        [height, height],
        color=colour,
        alpha=0.4,
        linewidth=4,
    )
    panel.plot(
        row.values,
        heights,
        "o",
        color=colour,
        alpha=0.6,
        markersize=5,
    )
    panel.plot(
        [row.mean],
        [height],
        "|",
        color=colour,
        markersize=16,
        markeredgewidth=2.5,
    )
    panel.annotate(
        f"{row.mean:.4f}",
        (high, height),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )


def _draw_parameter(panel: Any, rows: Sequence[Row], name: str) -> None:
    having = [row for row in rows if name in row.settings]
    if len(_varied(rows)) == 1:  # Nothing else varies: the means are a line.
        whole = [row for row in having if not row.missing]
        means = sorted((row.settings[name], row.mean) for row in whole)
        panel.plot(*_axes(means), "-", color=OTHER, alpha=0.5)
    points = []
    for row in having:
        points += [(row.settings[name], value) for value in row.values]
    panel.plot(
        *_axes(points),
        "o",
        color=OTHER,
        alpha=0.6,
        markersize=5,
    )
    best = winner(rows)
    if best and best.settings.get(name) is not None:
        panel.plot(
            [best.settings[name]],
            [best.mean],
            "o",
            color=BEST,
            markersize=8,
        )
    _mark_ticks(panel, sorted({x for x, _ in points}))
    panel.set_xlabel(short(name))
    panel.set_ylabel(rows[0].best.metric)


def _axes(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    across = [x for x, _ in points]
    up = [y for _, y in points]
    return across, up


def _mark_ticks(panel: Any, values: Sequence[float]) -> None:
    low = values[0]
    high = values[-1]
    if low > 0 and high / low >= WIDE:
        panel.set_xscale("log")
    if len(values) <= MOST_TICKS:
        # The values themselves: on a short logarithmic axis matplotlib's labels overlap.
        panel.minorticks_off()
        panel.set_xticks(
            values,
            [brief(value) for value in values],
            fontsize=8,
        )


def _varied(rows: Sequence[Row]) -> list[str]:
    return [name for name in parameters(rows) if len(_values(rows, name)) > 1]


def _values(rows: Sequence[Row], name: str) -> set[str]:
    return {repr(row.settings.get(name)) for row in rows}


def _numeric(rows: Sequence[Row]) -> list[str]:
    return [name for name in _varied(rows) if _is_numeric(rows, name)]


def _is_numeric(rows: Sequence[Row], name: str) -> bool:
    values = [row.settings[name] for row in rows if name in row.settings]
    return all(type(value) in (int, float) for value in values)


def _shortened(label: str) -> str:
    if len(label) <= MOST_LABEL:
        return label
    return f"{label[: MOST_LABEL - 1]}…"
