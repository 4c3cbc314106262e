"""The same group of workers as a Slurm script and a Kubernetes manifest, to be read and submitted.

Their text stands in the templates beside this file, where `{{ name }}` is a value from here.
"""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipelines.usage import ExitCode, UsageError

GRACE_S = 120  # before the end of the allotted time, for a checkpoint
LOCK_S = 120  # until a file system gives up the locks of a node that died; NFS takes 90
FINAL = (
    ExitCode.FAILED,
    ExitCode.REFUSED,
    ExitCode.UNDECIDED,
)  # A restart would end in them again.
VALUE = re.compile(r"(?m)^(?P<indent> *)\{\{ (?P<block>\w+) \}\}$|\{\{ (?P<word>\w+) \}\}")


@dataclass(frozen=True)
class Job:
    """What a cluster is to do.

    Attributes:
        run_dir: where the workers find it.
        data: overrides for the command that builds the data.
        train: overrides for each worker.
    """

    experiment: str
    workers: int
    restarts: int
    run_dir: str
    data: Sequence[str]
    train: Sequence[str]

    @property
    def name(self) -> str:
        """The experiment's name as Slurm and Kubernetes take names."""
        words = re.sub(r"[^a-z0-9]+", "-", f"trellis-{self.experiment}".lower())
        return words.strip("-")[:40].rstrip("-")


def render(kind: str, job: Job) -> str:
    """The script or manifest of `kind`.

    Raises:
        UsageError: no such kind.
    """
    if kind not in KINDS:
        raise UsageError(f"print: {kind!r} is not known; there are: {', '.join(KINDS)}")
    return KINDS[kind](job)


def slurm(job: Job) -> str:
    """A batch script: one worker on each node, told apart by Slurm's own variables."""
    values = {
        "name": job.name,
        "workers": job.workers,
        "restarts": job.restarts,
        "run_dir": shlex.quote(job.run_dir),
        "data": shlex.join(job.data),
        "train": shlex.join(job.train),
        "grace_s": GRACE_S,
        "lock_s": LOCK_S,
        "in_use": int(ExitCode.IN_USE),
    }
    return _filled("slurm.sh.template", values)


def kubernetes(job: Job) -> str:
    """A headless service and an indexed job: one worker in each pod."""
    values = {
        "name": job.name,
        "workers": job.workers,
        "failures": job.restarts * job.workers,
        "data": _listed(job.data),
        "train": _listed(job.train),
        "grace_s": GRACE_S,
        "done": int(ExitCode.DONE),
        "refused": int(ExitCode.REFUSED),
        "final": _listed([int(code) for code in FINAL]),
    }
    return _filled("kubernetes.yaml.template", values)


def _filled(template: str, values: Mapping[str, object]) -> str:
    """The text of a template with its values; one alone on its line may have several lines."""

    def value(match: re.Match[str]) -> str:
        text = str(values[match["block"] or match["word"]])
        indent = match["indent"] or ""
        return indent + text.replace("\n", f"\n{indent}")

    return VALUE.sub(value, Path(__file__).with_name(template).read_text())


def _listed(items: Sequence[object]) -> str:
    """A list in YAML, an item on each line."""
    return yaml.safe_dump(list(items), width=120).rstrip("\n")


KINDS: dict[str, Callable[[Job], str]] = {"slurm": slurm, "kubernetes": kubernetes}
