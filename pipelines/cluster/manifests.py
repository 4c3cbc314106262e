"""The same group of workers as a Slurm script and as a Kubernetes manifest, printed to be read and submitted."""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipelines.usage import ExitCode, UsageError

GRACE_S = 120  # before the end of the allotted time, for a checkpoint
LOCK_S = 120  # until a file system gives up the locks of a node that died; NFS takes 90
FINAL = [
    int(code) for code in (ExitCode.FAILED, ExitCode.REFUSED, ExitCode.RESCALED)
]  # would come again


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
    return f"""#!/bin/bash
# {job.workers} workers, one on each node. The directory of this script's checkout, data_dir and run_dir must be
# on a file system that all nodes share. Add --partition, --account and --gpus-per-node as your cluster needs them; on GPUs also
# runtime.num_gpus=-1.
#SBATCH --job-name={job.name}
#SBATCH --nodes={job.workers}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@{GRACE_S}
#SBATCH --output={job.name}-%j.log
set -u
cd "${{TRELLIS_HOME:-$SLURM_SUBMIT_DIR}}"
# Said again to srun, which since Slurm 22.05 does not take it over from sbatch and would give each worker one core.
cores="--cpus-per-task=${{SLURM_CPUS_PER_TASK:-1}}"

# Once, before the workers start.
srun --nodes=1 --ntasks=1 "$cores" .venv/bin/trellis data {shlex.join(job.data)} || exit

# srun returns the highest of the workers' exit codes. Telling the cause takes all of them, so each is written down.
codes={shlex.quote(job.run_dir)}/workers/codes-${{SLURM_JOB_ID:-0}}
# The signal before the end of the allotted time reaches this shell too, which has to outlive the worker it waits for.
worker='trap : TERM INT; "$@"; code=$?; echo "$code" > "$0/$SLURM_PROCID"; exit "$code"'

# A group that lost a worker goes on from its newest checkpoint, {job.restarts} times at most.
for attempt in $(seq 0 {job.restarts}); do
  rm -rf "$codes"
  mkdir -p "$codes"
  srun --kill-on-bad-exit=0 "$cores" bash -c "$worker" "$codes" .venv/bin/trellis train {shlex.join(job.train)}
  code=$?
  verdict=$(.venv/bin/python -m pipelines.cluster.verdict "$codes" {job.workers} "$code") || verdict="$code ended"
  read -r code again <<< "$verdict"
  if [ "$again" != again ]; then break; fi
  # {ExitCode.IN_USE:d}: the run directory is locked; on a shared disk a lock outlives a dead node by a minute or two.
  if [ "$code" -eq {ExitCode.IN_USE:d} ]; then sleep {LOCK_S}; fi
done
rm -rf "$codes"
exit "$code"
"""


def kubernetes(job: Job) -> str:
    """A headless service and an indexed job: one worker in each pod."""
    environment = {"TRELLIS_WORKERS": str(job.workers), "TRELLIS_SERVICE": job.name}
    mount = [{"name": "shared", "mountPath": "/trellis"}]
    image = {"image": "trellis:latest", "volumeMounts": mount}
    pod = {
        "subdomain": job.name,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        # Every pod asks; the first builds, the others wait for its lock and find the data.
        "initContainers": [{"name": "data", **image, "command": ["trellis", "data", *job.data]}],
        "containers": [
            {
                "name": "worker",
                **image,
                "command": ["trellis", "train", *job.train],
                "env": [{"name": key, "value": value} for key, value in environment.items()],
                "resources": {"requests": {"cpu": "8", "memory": "16Gi"}},
            }
        ],
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": "trellis"}}],
    }
    # A pod that was killed, could not go on without another, or found the run directory still locked is replaced.
    failures = {
        "rules": [
            _rule("FailJob", "worker", "In", FINAL),
            _rule("FailJob", "data", "In", [int(ExitCode.REFUSED)]),
            _rule("Count", "worker", "NotIn", [int(ExitCode.DONE), *FINAL]),
        ]
    }
    documents = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": job.name},
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {"job-name": job.name},
            },
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job.name},
            "spec": {
                "completionMode": "Indexed",
                "completions": job.workers,
                "parallelism": job.workers,
                "backoffLimit": job.restarts * job.workers,
                "podFailurePolicy": failures,
                "template": {"spec": pod},
            },
        },
    ]
    return (
        f"# {job.workers} workers, one in each pod. Yours to set: the image, the claim (a volume that\n"
        "# all pods write to, with file locks), resources; on GPUs also nvidia.com/gpu under limits and runtime.num_gpus=-1.\n"
        + yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=120)
    )


def _rule(action: str, container: str, operator: str, codes: list[int]) -> dict[str, Any]:
    return {
        "action": action,
        "onExitCodes": {"containerName": container, "operator": operator, "values": codes},
    }


class _Plain(yaml.SafeDumper):
    """YAML without anchors, which people do not expect in a manifest."""

    def ignore_aliases(self, data: object) -> bool:
        return True


KINDS: dict[str, Callable[[Job], str]] = {"slurm": slurm, "kubernetes": kubernetes}
