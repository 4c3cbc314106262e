"""Ranks networks under limits, and says why each of the others comes after: accuracy is never the only column."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.weights.rows import Row

FEW = 2000  # images, under which weights that are here count more than a published figure
EDGE = 10.0  # million parameters: what `target=edge` means where no other limit is given


@dataclass(frozen=True)
class Wanted:
    """What a network is to do, and what it may cost; None: anything."""

    task: str
    images: int | None = None
    max_params_m: float | None = None
    max_flops_b: float | None = None
    max_cpu_ms: float | None = None
    max_size_mb: float | None = None
    max_ms: float | None = None
    max_memory_mb: float | None = None
    licence: str | None = None

    def refusal(self, row: Row) -> str | None:
        """Why a network is out; None: it is not. A limit is not kept by what is not known."""
        limits = (
            ("params_m", self.max_params_m, "M parameters"),
            ("flops_b", self.max_flops_b, "B operations"),
            ("cpu_ms", self.max_cpu_ms, "ms on a CPU"),
            ("size_mb", self.max_size_mb, "MB"),
            ("here_ms", self.max_ms, "ms on this machine"),
            ("memory_mb", self.max_memory_mb, "MB of memory on this machine"),
        )
        for name, limit, unit in limits:
            value = getattr(row, name)
            if limit is None:
                continue
            if value is None:
                return f"its {unit} are not known, and the limit is {limit}"
            if value > limit:
                return f"{value} {unit}, over {limit}"
        if self.licence and row.licence != self.licence:
            return f"licence {row.licence}, not {self.licence}"
        return None

    def order(self, row: Row) -> tuple:
        """Sorts networks, the best first."""
        is_few = self.images is not None and self.images < FEW
        is_ready = bool(row.init) if is_few else False
        return (-is_ready, -(row.value or 0), row.params_m)

    def reason(self, winner: Row, row: Row) -> str:
        """Why a network comes after the winner."""
        if self.order(winner)[0] < self.order(row)[0]:
            return (
                f"no weights for it are here, and {self.images} images are few to start at random"
            )
        if row.value is None:
            return "no figure is published for it"
        if winner.metric != row.metric or winner.data != row.data:
            return f"{row.metric} {row.value} on {row.data}, which is another measure"
        if row.value < (winner.value or 0):
            behind = (winner.value or 0) - row.value
            return f"{behind:.1f} points behind, {row.params_m} M parameters"
        return f"{row.params_m} M parameters for the same figure"


def rank(rows: Sequence[Row], wanted: Wanted) -> tuple[list[Row], dict[str, str]]:
    """The networks for a task that keep the limits, the best first; and why the others are out."""
    kept = []
    out = {}
    for row in rows:
        if row.task != wanted.task:
            continue
        refusal = wanted.refusal(row)
        if refusal:
            out[row.name] = refusal
        else:
            kept.append(row)
    return sorted(kept, key=wanted.order), out


def draw(rows: Sequence[Row], file: Path) -> None:
    """Draws the published figure against the number of parameters, one panel a measure."""
    import matplotlib  # It takes a second.

    matplotlib.use("agg")
    from matplotlib import pyplot  # Likewise.

    figure, axes = pyplot.subplots(figsize=(9, 6))
    measures = sorted({f"{row.metric} on {row.data}" for row in rows if row.value})
    for measure in measures:
        shown = [row for row in rows if f"{row.metric} on {row.data}" == measure]
        sizes = [row.params_m for row in shown]
        values = [row.value or 0.0 for row in shown]
        axes.scatter(sizes, values, label=measure)
    for row in rows[:12]:
        if row.value:
            axes.annotate(row.model[:30], (row.params_m, row.value), fontsize=7)
    axes.set(xscale="log", xlabel="parameters (millions)", ylabel="published figure (%)")
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
