"""Draws how this tool stands to the official ones, as the README shows it."""

from collections.abc import Collection, Mapping
from pathlib import Path

from matplotlib import rcParams
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

BETTER, WORSE = "tab:blue", "tab:orange"
WIDTH, ROW, EDGES = 8.0, 0.32, 1.3  # inches
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32)


def draw(ratios: Mapping[str, Mapping[str, float]], subtitle: str, path: Path) -> None:
    """Draws a bar for each ratio, from 1 to its middle, with a line from its least to its most.

    Args:
        ratios: by what was measured: `middle`, `low` and `high`, times as good as the official tool.
    """
    rcParams["svg.hashsalt"] = "trellis"  # Equal figures give equal bytes.
    names = list(ratios)
    drawing = Figure(figsize=(WIDTH, EDGES + ROW * len(names)), layout="constrained")
    FigureCanvasSVG(drawing)
    panel = drawing.subplots()
    for height, name in enumerate(names):
        row = ratios[name]
        middle = row["middle"]
        colour = BETTER if middle >= 1 else WORSE
        panel.barh(height, middle - 1, left=1, height=0.6, color=colour)
        panel.plot([row["low"], row["high"]], [height, height], color="black", linewidth=1)
        panel.annotate(
            f" {middle:.2f}", (max(middle, row["high"], 1), height), va="center", fontsize=8
        )
    panel.set_xscale("log")
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.invert_yaxis()
    panel.axvline(1, color="black", linewidth=1)
    ticks = _ticks(list(ratios.values()))
    panel.set_xticks(ticks, [f"{tick:g}x" for tick in ticks], fontsize=8)
    panel.set_xticks([], minor=True)
    panel.margins(x=0.12)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.set_title(f"times as good as the official tool\n{subtitle}", fontsize=9)
    drawing.savefig(path, format="svg", metadata={"Date": None})


def _ticks(rows: Collection[Mapping[str, float]]) -> list[float]:
    """Those within reach of the figures."""
    least = min(1.0, *(row["low"] for row in rows))
    most = max(1.0, *(row["high"] for row in rows))
    return [tick for tick in TICKS if least / 2 < tick < most * 2]
