"""What became of a group of workers, judged from the exit code of each.

The batch script for Slurm asks it by

    python -m pipelines.cluster.verdict <folder> <workers> <srun's exit code>

where <folder> holds a file for every worker, named by its number, with its exit code. Printed are
the group's exit code and `again` where the same group, started again, can end otherwise, else
`ended`.
"""

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.usage import ExitCode, stopped_by

ASKED = {stopped_by(number) for number in (signal.SIGINT, signal.SIGTERM)}
KILLED = stopped_by(signal.SIGKILL)
# Who speaks for the group: the lower its code's rank, the nearer to the cause. Others rank as below.
RANKS = {
    KILLED: 1,
    ExitCode.FAILED: 2,
    ExitCode.IN_USE: 3,
    ExitCode.PEER_GONE: 5,
    ExitCode.DONE: 6,
}
OWN_WORD = 0  # a worker's that refused its settings or was asked to stop
CRASHED = 4  # by any other signal: TensorFlow aborts some of those that another has left


@dataclass(frozen=True)
class Verdict:
    """Which worker's exit code speaks for the group, and whether the group is worth starting again."""

    worker: int
    code: int
    again: bool


def judge(codes: Mapping[int, int]) -> Verdict:
    """Judges a group by the exit codes of its workers, by number, as shells count them.

    One worker's end ends the others, so the code that is the cause has to be told from those that
    follow from it. A worker that refused its settings or was asked to stop speaks for all; then one
    that was killed from outside, since the others may have failed in any way after it; then one
    that failed; and last those that say that another has gone.
    """
    worker = min(sorted(codes), key=lambda number: _rank(codes[number]))
    code = codes[worker]
    again = _by_signal(code) or code in (ExitCode.IN_USE, ExitCode.PEER_GONE)
    return Verdict(worker, code, again)


def _rank(code: int) -> int:
    if code in RANKS:
        return RANKS[code]
    return CRASHED if _by_signal(code) else OWN_WORD


def _by_signal(code: int) -> bool:
    return code > stopped_by(0) and code not in ASKED


def written(folder: Path, workers: int, otherwise: int) -> dict[int, int]:
    """The codes that the workers have written into `folder`; srun's where none came that far."""
    files = {number: folder / str(number) for number in range(workers)}
    if not any(file.exists() for file in files.values()):
        return {0: otherwise}
    return {number: _code(file) for number, file in files.items()}


def _code(file: Path) -> int:
    text = file.read_text().strip() if file.exists() else ""
    # One that left no code was killed, by something that took its shell along.
    return int(text) if text.isdigit() else KILLED


def main(folder: str, workers: str, otherwise: str) -> None:
    """Prints the verdict for a shell to read."""
    verdict = judge(written(Path(folder), int(workers), int(otherwise)))
    outlook = "again" if verdict.again else "ended"
    print(int(verdict.code), outlook)


if __name__ == "__main__":
    main(*sys.argv[1:])
