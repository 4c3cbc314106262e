"""Progress of a build, read from the shards that have appeared: the same with every runner."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Collection
from typing import Self

from etils import epath
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars

from pipelines.data import index, summary
from pipelines.data.index import Index

EVERY_S = 2.0  # on a terminal
EVERY_PIPED_S = 15.0
COLUMNS = (BarColumn(bar_width=20), TaskProgressColumn(), TextColumn("{task.description}"))


class Progress:
    """Shows records per second, rejects and the time left while shards are written: a bar, or lines where no terminal is."""

    def __init__(self, folder: epath.Path, listed: Index, waiting: Collection[str]) -> None:
        self._folder = folder
        self._inputs = {shard: listed.shards[shard] for shard in waiting}
        self._total = _records(listed, waiting)
        self._rejects = len(listed.rejects)
        self._done = 0
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        if sys.stdout.isatty():
            self._show_bar()
        else:
            self._print_lines()

    def _show_bar(self) -> None:
        console = Console(file=sys.stdout)
        with Bars(*COLUMNS, console=console, transient=True) as bars:
            bar = bars.add_task("data: starting", total=self._total)
            while not self._stop.wait(EVERY_S):
                self._count()
                bars.update(
                    bar,
                    completed=self._done,
                    description=self._line(),
                )

    def _print_lines(self) -> None:
        while not self._stop.wait(EVERY_PIPED_S):
            self._count()
            print(self._line(), flush=True)

    def _count(self) -> None:
        """Adds the shards that have appeared since."""
        for shard, inputs in sorted(self._inputs.items()):
            counted = summary.read(self._folder, shard)
            if counted and counted.inputs == inputs:
                del self._inputs[shard]
                self._done += counted.examples
                self._rejects += len(counted.rejects)

    def _line(self) -> str:
        rate = self._done / (time.monotonic() - self._started)
        left = f"{(self._total - self._done) / rate:.0f} s left" if rate else "starting"
        records = f"{self._done} of about {self._total} records"
        return f"data: {records}, {rate:.0f} a second, {self._rejects} rejects, {left}"


def _records(listed: Index, waiting: Collection[str]) -> int:
    """How many records some shards will hold, about: those of a split are equally large."""
    shards = Counter(index.split_of(shard) for shard in listed.shards)
    total = 0.0
    for shard in waiting:
        split = index.split_of(shard)
        total += listed.examples[split] / shards[split]
    return round(total)
