"""Progress of a build, read from the shards that have appeared: the same with every runner."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Collection
from typing import Self

from etils import epath

from pipelines.data import index, summary
from pipelines.data.index import Index

EVERY_S = 2.0  # on a terminal
EVERY_PIPED_S = 15.0


class Progress:
    """Prints records per second, rejects and the time left while shards are written."""

    def __init__(
        self,
        folder: epath.Path,
        listed: Index,
        waiting: Collection[str],
    ) -> None:
        self._folder = folder
        self._waiting = set(waiting)
        shards = Counter(index.split_of(name) for name in listed.shards)
        total = 0.0
        for shard in waiting:
            split = index.split_of(shard)
            total += listed.examples[split] / shards[split]
        self._total = round(total)
        self._inputs = {shard: listed.shards[shard] for shard in waiting}
        self._rejects = len(listed.rejects)
        self._done = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        started = time.monotonic()
        terminal = sys.stdout.isatty()
        pause = EVERY_S if terminal else EVERY_PIPED_S
        while not self._stop.wait(pause):
            self._count()
            print(
                self._line(time.monotonic() - started), end="\r" if terminal else "\n", flush=True
            )
        if terminal:
            print(" " * 100, end="\r")

    def _count(self) -> None:
        for shard in sorted(self._waiting):
            written = summary.read(self._folder, shard)
            if written and written.inputs == self._inputs[shard]:
                self._waiting.discard(shard)
                self._done += written.examples
                self._rejects += len(written.rejects)

    def _line(self, seconds: float) -> str:
        rate = self._done / seconds
        left = "starting"
        if rate:
            seconds_left = (self._total - self._done) / rate
            left = f"{seconds_left:.0f} s left"
        return (
            f"data: {self._done} of about {self._total} records, "
            f"{rate:.0f} a second, "
            f"{self._rejects} rejects, "
            f"{left}"
        )
