"""Progress of a build, read from the shards that have appeared: the same with every runner."""

import sys
import threading
import time
from collections.abc import Collection
from typing import Self

from etils import epath

from pipelines.data import index, summary
from pipelines.data.index import Index

EVERY_S = 2.0  # on a terminal
EVERY_PIPED_S = 15.0


class Progress:
    """Prints records per second, rejects and the time left while shards are written."""

    def __init__(self, folder: epath.Path, listed: Index, waiting: Collection[str]) -> None:
        self._folder, self._waiting = folder, set(waiting)
        counts = {
            split: sum(index.split_of(name) == split for name in listed.shards)
            for split in listed.examples
        }
        self._total = round(
            sum(
                listed.examples[index.split_of(shard)] / counts[index.split_of(shard)]
                for shard in waiting
            )
        )
        self._known: dict[str, str] = {shard: listed.shards[shard] for shard in waiting}
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
        started, terminal = time.monotonic(), sys.stdout.isatty()
        while not self._stop.wait(EVERY_S if terminal else EVERY_PIPED_S):
            self._count()
            print(
                self._line(time.monotonic() - started), end="\r" if terminal else "\n", flush=True
            )
        if terminal:
            print(" " * 100, end="\r")

    def _count(self) -> None:
        for shard in sorted(self._waiting):
            found = summary.read(self._folder, shard)
            if found and found.inputs == self._known[shard]:
                self._waiting.discard(shard)
                self._done += found.examples
                self._rejects += len(found.rejects)

    def _line(self, seconds: float) -> str:
        rate = self._done / seconds
        left = f"{(self._total - self._done) / rate:.0f} s left" if rate else "starting"
        return f"data: {self._done} of about {self._total} records, {rate:.0f} a second, {self._rejects} rejects, {left}"
