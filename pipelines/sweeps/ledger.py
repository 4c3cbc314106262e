"""The ledger of a sweep: what was suggested, started and found out, one JSON object a line, only ever appended.

    {"event": "suggested", "time": 1700000000, "space": "5f0c…", "number": 6, "point": {"learning_rate": 0.031}}
    {"event": "started", "time": 1700000000, "trial": "9a41…", "settings": {"learning_rate": 0.031}, "run_dir": "…"}
    {"event": "circumstances", "time": 1700000000, "digest": "77c0…", "values": {"code": "b1f2…", "libraries": {…}, …}}
    {"event": "finished", "time": 1700000042, "trial": "9a41…", "value": 0.97, "seconds": 41.8, ...}

The last line about a trial is its state. A trial whose last line is not `finished` is still to be done.
"""

import time
from pathlib import Path
from typing import Any

from pipelines.sweeps.circumstances import digest
from pipelines.sweeps.space import Point
from pipelines.system import durable


class Ledger:
    """What is known of a sweep's trials.

    Attributes:
        finished: results by trial, each with `value`, `metric` and `seconds`.
        circumstances: what results depended on beside settings and data, by digest.
    """

    def __init__(self, path: Path) -> None:
        """Reads what earlier sessions wrote; a last line that a killed one left unfinished is cut off."""
        self.path = path
        self.finished: dict[str, dict[str, Any]] = {}
        self.circumstances: dict[str, dict[str, Any]] = {}
        self._suggested: dict[str, dict[int, Point]] = {}
        path.touch()
        durable.cut_torn_line(path)
        for entry, _ in durable.read_lines(path):
            self._learn(entry)

    def write(self, event: str, **values: Any) -> None:
        """Appends one event; it is on the disk when this returns."""
        entry = {"event": event, "time": int(time.time()), **values}
        durable.append(self.path, durable.as_lines(entry), to_disk=True)
        self._learn(entry)

    def suggested(self, space: str) -> list[Point]:
        """The points suggested so far for the space of that digest, in order."""
        points = self._suggested.get(space, {})
        return [points[number] for number in sorted(points)]

    def under(self, circumstances: dict[str, Any]) -> str:
        """The digest of these circumstances, written down where they are new."""
        name = digest(circumstances)
        if name not in self.circumstances:
            self.write("circumstances", digest=name, values=circumstances)
        return name

    def earlier(self, base: str) -> dict[str, Any] | None:
        """The circumstances under which the trial of these settings and data finished last; None: it did not."""
        for result in reversed(self.finished.values()):
            if result.get("base") == base:
                return self.circumstances.get(result["circumstances"])
        return None

    def _learn(self, entry: dict[str, Any]) -> None:
        match entry["event"]:
            case "suggested":
                points = self._suggested.setdefault(entry["space"], {})
                points[entry["number"]] = entry["point"]
            case "circumstances":
                self.circumstances[entry["digest"]] = entry["values"]
            case "finished":
                self.finished[entry["trial"]] = entry
