"""The same group of workers as a Slurm script and as a Kubernetes manifest, printed to be read, changed and submitted."""

import re
import shlex
from collections.abc import Sequence

import yaml

from pipelines.cluster.membership import PEER_GONE
from pipelines.usage import UsageError

GRACE_S = 120  # before the end of the allotted time, for a checkpoint
KINDS = ("slurm", "kubernetes")


def render(kind: str, name: str, workers: int, restarts: int, data: Sequence[str], train: Sequence[str]) -> str:
    """The script or manifest of `kind`.

    Args:
        data: overrides for the command that builds the data.
        train: overrides for each worker.

    Raises:
        UsageError: no such kind.
    """
    if kind not in KINDS:
        raise UsageError(f"print: {kind!r} is not known; there are: {', '.join(KINDS)}")
    job = re.sub(r"[^a-z0-9]+", "-", f"trellis-{name}".lower()).strip("-")[:40].rstrip("-")
    return (slurm if kind == "slurm" else kubernetes)(job, workers, restarts, data, train)


def slurm(job: str, workers: int, restarts: int, data: Sequence[str], train: Sequence[str]) -> str:
    """A batch script: one worker on each node, told apart by Slurm's own variables."""
    return f"""#!/bin/bash
# {workers} workers, one on each node. The directory of this script's checkout, data_dir and run_dir must be on a file system that all
# nodes share. Add --partition, --account and --gpus-per-node as your cluster needs them; on GPUs also runtime.num_gpus=-1.
#SBATCH --job-name={job}
#SBATCH --nodes={workers}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@{GRACE_S}
#SBATCH --output={job}-%j.log
set -u
cd "${{TRELLIS_HOME:-$SLURM_SUBMIT_DIR}}"

# Once, before the workers start.
srun --nodes=1 --ntasks=1 .venv/bin/trellis data {shlex.join(data)} || exit

# A group that lost a worker goes on from its newest checkpoint, {restarts} times at most.
for attempt in $(seq 0 {restarts}); do
  srun --kill-on-bad-exit=0 .venv/bin/trellis train {shlex.join(train)}
  code=$?
  # {PEER_GONE}: could not go on without another worker; 137: killed. Anything else would happen again, or was asked for.
  if [ "$code" -ne {PEER_GONE} ] && [ "$code" -ne 137 ]; then break; fi
done
exit "$code"
"""


def kubernetes(job: str, workers: int, restarts: int, data: Sequence[str], train: Sequence[str]) -> str:
    """A headless service and an indexed job: one worker in each pod."""
    environment = {"TRELLIS_WORKERS": str(workers), "TRELLIS_SERVICE": job}
    mount = [{"name": "shared", "mountPath": "/trellis"}]
    image = {"image": "trellis:latest", "volumeMounts": mount}
    pod = {
        "subdomain": job,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        # Every pod asks; the first builds, the others wait for its lock and find the data.
        "initContainers": [{"name": "data", **image, "command": ["trellis", "data", *data]}],
        "containers": [
            {
                "name": "worker",
                **image,
                "command": ["trellis", "train", *train],
                "env": [{"name": key, "value": value} for key, value in environment.items()],
                "resources": {"requests": {"cpu": "8", "memory": "16Gi"}},
            }
        ],
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": "trellis"}}],
    }
    # A pod that was killed, or that could not go on without another, is replaced; other exit codes would come again.
    failures = {
        "rules": [
            {"action": "FailJob", "onExitCodes": {"containerName": "worker", "operator": "In", "values": [1, 2]}},
            {"action": "Count", "onExitCodes": {"containerName": "worker", "operator": "NotIn", "values": [0, 1, 2]}},
        ]
    }
    documents = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": job},
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"job-name": job}},
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job},
            "spec": {
                "completionMode": "Indexed",
                "completions": workers,
                "parallelism": workers,
                "backoffLimit": restarts * workers,
                "podFailurePolicy": failures,
                "template": {"spec": pod},
            },
        },
    ]
    return (
        f"# {workers} workers, one in each pod. Yours to set: the image, the claim (a volume that all pods write to, with file locks),\n"
        "# resources; on GPUs also nvidia.com/gpu under limits and runtime.num_gpus=-1.\n"
        + yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=120)
    )


class _Plain(yaml.SafeDumper):
    """YAML without anchors, which people do not expect in a manifest."""

    def ignore_aliases(self, data: object) -> bool:
        return True
