"""Which worker of which group this process is, as variables of the environment tell.

They are TF_CONFIG, or Slurm's, or those of a Kubernetes indexed job:

SLURM_JOB_NODELIST=gpu[01-02] SLURM_NTASKS=2 SLURM_PROCID=1
JOB_COMPLETION_INDEX=1 TRELLIS_HOSTS=trellis-0.trellis,trellis-1.trellis
JOB_COMPLETION_INDEX=1 TRELLIS_WORKERS=2 TRELLIS_SERVICE=trellis HOSTNAME=trellis-1
"""

import json
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from pipelines.usage import UsageError

PORT = 23456  # the first worker's on a machine, unless hosts say otherwise
_RANGES = re.compile(r"\[\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*\]")


@dataclass(frozen=True)
class Membership:
    """A worker's place in its group.

    Attributes:
        hosts: each as `host:port`, in the order that all workers share, the chief first.
        index: this worker's among them.
        source: the variable that told it.
    """

    hosts: tuple[str, ...]
    index: int
    source: str

    @property
    def is_chief(self) -> bool:
        """Whether this is the worker that records the run and keeps its checkpoints."""
        return self.index == 0

    def tf_config(self) -> str:
        """What TensorFlow reads as TF_CONFIG."""
        return json.dumps(
            {
                "cluster": {"worker": list(self.hosts)},
                "task": {"type": "worker", "index": self.index},
            }
        )


def join(environment: MutableMapping[str, str]) -> Membership:
    """Finds this process's place and tells TensorFlow.

    Raises:
        UsageError: there is none, or what there is contradicts itself.
    """
    member = read(environment)
    if member is None:
        raise UsageError(
            "runtime=multi_worker: this process is not part of a group (looked for TF_CONFIG; "
            "SLURM_NTASKS, SLURM_PROCID; JOB_COMPLETION_INDEX); "
            "start one here with: make launch EXP=<name> ARGS=workers=2"
        )
    environment.setdefault("TF_CONFIG", member.tf_config())
    return member


def read(environment: Mapping[str, str]) -> Membership | None:
    """This process's place in a group, None where the variables name no group.

    Raises:
        UsageError: the variables contradict each other.
    """
    for source in (_tensorflow, _kubernetes, _slurm):
        if member := source(environment):
            if not 0 <= member.index < len(member.hosts):
                raise UsageError(
                    f"{member.source}: worker {member.index} of {len(member.hosts)}; they count from 0"
                )
            return member
    return None


def _tensorflow(environment: Mapping[str, str]) -> Membership | None:
    if not environment.get("TF_CONFIG"):
        return None
    try:
        stated = json.loads(environment["TF_CONFIG"])
        cluster = stated["cluster"]
        kind = stated["task"]["type"]
        index = int(stated["task"]["index"])
        chiefs = tuple(cluster.get("chief", ()))
        workers = tuple(cluster.get("worker", ()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"TF_CONFIG: cannot be read ({type(error).__name__}: {error}); it looks like "
            '{"cluster": {"worker": ["host:port", "host:port"]}, '
            '"task": {"type": "worker", "index": 0}}'
        ) from None
    if kind not in ("chief", "worker") or set(cluster) - {"chief", "worker"}:
        raise UsageError(
            f"TF_CONFIG: a task of type {kind!r} in {sorted(cluster)}; "
            "only chief and worker train together"
        )
    if kind == "worker":
        index += len(chiefs)
    return Membership(chiefs + workers, index, "TF_CONFIG")


def _kubernetes(environment: Mapping[str, str]) -> Membership | None:
    if "JOB_COMPLETION_INDEX" not in environment:
        return None
    index = _number(environment, "JOB_COMPLETION_INDEX")
    stated = environment.get("TRELLIS_HOSTS", "").split(",")
    hosts = [host.strip() for host in stated if host.strip()]
    if not hosts:
        hosts = _pods(environment)
    addresses = [host if ":" in host else f"{host}:{PORT}" for host in hosts]
    return Membership(tuple(addresses), index, "JOB_COMPLETION_INDEX")


def _pods(environment: Mapping[str, str]) -> list[str]:
    """Names of the pods of an indexed job behind a headless service."""
    service = environment.get("TRELLIS_SERVICE")
    job = environment.get("HOSTNAME", "").rpartition("-")[0]
    if not service or not job or "TRELLIS_WORKERS" not in environment:
        raise UsageError(
            "JOB_COMPLETION_INDEX is set, but not who else is in the group: "
            "give TRELLIS_HOSTS=<host>,<host>, or TRELLIS_WORKERS=<number> and "
            "TRELLIS_SERVICE=<headless service>; "
            "see: make launch EXP=<name> ARGS=print=kubernetes"
        )
    workers = _number(environment, "TRELLIS_WORKERS")
    return [f"{job}-{number}.{service}" for number in range(workers)]


def _slurm(environment: Mapping[str, str]) -> Membership | None:
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    if not nodes or "SLURM_PROCID" not in environment or "SLURM_NTASKS" not in environment:
        return None
    machines = expand(nodes)
    tasks = _number(environment, "SLURM_NTASKS")
    layout = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE")
    counts = _counts(layout) if layout else _evenly(tasks, len(machines))
    if len(counts) != len(machines) or sum(counts) != tasks:
        raise UsageError(
            f"Slurm: {tasks} tasks (SLURM_NTASKS), but {layout} on {nodes}; "
            "start the workers with srun"
        )
    # Jobs that share a machine get ports of different ranges.
    first_port = PORT + int(environment.get("SLURM_JOB_ID", "0")) % 1000 * 8
    hosts = []
    for machine, count in zip(machines, counts, strict=True):
        hosts += [f"{machine}:{first_port + number}" for number in range(count)]
    return Membership(tuple(hosts), _number(environment, "SLURM_PROCID"), "SLURM_PROCID")


def _evenly(tasks: int, machines: int) -> list[int]:
    """Tasks on each machine, as Slurm shares them out: the first get what does not divide."""
    if machines == 0:
        return []
    each, remainder = divmod(tasks, machines)
    return [each + 1] * remainder + [each] * (machines - remainder)


def expand(nodes: str) -> list[str]:
    """Host names of a Slurm node list: `gpu[01-03,7],login` becomes gpu01, gpu02, gpu03, gpu7, login.

    Raises:
        UsageError: the brackets do not match or hold no ranges.
    """
    if set("[]") & set(_RANGES.sub("", nodes)):
        raise UsageError(
            f"SLURM_JOB_NODELIST: {nodes!r} cannot be read; it looks like node[01-04],other"
        )
    names = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        names += _unfold(part)
    return names


def _unfold(part: str) -> list[str]:
    """Host names of one part of a node list: `gpu[01-03,7]`, or a plain name."""
    before, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    ranges, _, after = rest.partition("]")
    tails = _unfold(after)
    names = []
    for bounds in ranges.split(","):
        low, _, high = bounds.partition("-")
        digits = len(low)
        for number in range(int(low), int(high or low) + 1):
            names += [f"{before}{number:0{digits}d}{tail}" for tail in tails]
    return names


def _counts(layout: str) -> list[int]:
    """Tasks on each machine: Slurm writes `2(x3),1`."""
    counts = []
    for number, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", layout):
        counts += [int(number)] * int(times or 1)
    return counts


def _number(environment: Mapping[str, str], name: str) -> int:
    if not environment[name].isdigit():
        raise UsageError(f"{name}: {environment[name]!r} is not a number")
    return int(environment[name])
