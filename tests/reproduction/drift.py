"""What upstream's prose says of a published row beside what its settings resolve to, as the table in docs/published.md."""

from typing import Any

from tests.reproduction import upstream

WORDS = {"epochs": "epochs", "steps": "steps", "batch_size": "batch"}


def lines(table: dict[str, Any]) -> list[str]:
    """Rows of the page's table, for each recipe of which the two differ."""
    rows = []
    for name in upstream.PUBLISHED:
        short = name.removeprefix("published/")
        differing = drift(upstream.facts(name), table[short])
        rows += [f"| `{short}` | {said} | {is_so} |" for said, is_so in differing]
    return rows


def drift(row: dict[str, Any], resolved: dict[str, Any]) -> list[tuple[str, str]]:
    """In what one row and its recipe differ."""
    said = row["says"]
    differing = []
    for word, key in WORDS.items():
        if word in said and not _is_near(said[word], resolved[key]):
            differing.append((f"{said[word]:,} {key}", f"{resolved[key]:,} {key}"))
    size = resolved["input_size"][-2:]
    if "resolution" in said and list(said["resolution"]) != size:
        differing.append((_edges(said["resolution"]), _edges(size)))
    frames = resolved["input_size"][0]
    if said.get("input_frames", frames) != frames:
        differing.append((f"{said['input_frames']} frames", f"{frames} frames"))
    counted = resolved.get("counted_m")
    if "params_m" in said and counted and not _is_near(said["params_m"], counted):
        differing.append((f"{said['params_m']:g} M parameters", f"{counted:g} M, counted"))
    for other in row.get("other_figures", []):
        if other["metrics"].items() <= row["metrics"].items():
            continue
        differing.append(
            (_figures(row["metrics"]), f"{_figures(other['metrics'])} ({other['source']})")
        )
    return differing


def _is_near(said: float, resolved: float) -> bool:
    """Within half a percent: prose rounds."""
    return abs(said - resolved) <= 0.005 * said


def _edges(size: list[int]) -> str:
    return "x".join(str(edge) for edge in size) + " px"


def _figures(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in metrics.items())
