"""The variables of TensorFlow, Slurm and Kubernetes, turned into a worker's place in its group."""

import json
import subprocess
import sys

import pytest

from pipelines.cluster import membership
from pipelines.usage import UsageError

SLURM = {
    "SLURM_JOB_NODELIST": "gpu[08-10,2],login",
    "SLURM_NTASKS": "5",
    "SLURM_PROCID": "3",
    "SLURM_JOB_ID": "77001",
}
KUBERNETES = {
    "JOB_COMPLETION_INDEX": "1",
    "TRELLIS_WORKERS": "2",
    "TRELLIS_SERVICE": "job",
    "HOSTNAME": "job-1",
}
CLUSTER = {
    "cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]},
    "task": {"type": "worker", "index": 1},
}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("one", ["one"]),
        ("a,b", ["a", "b"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[008-010]", ["n008", "n009", "n010"]),
        ("n[1,4-5]x,m", ["n1x", "n4x", "n5x", "m"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("gpu-a-[01-02].cluster.local", ["gpu-a-01.cluster.local", "gpu-a-02.cluster.local"]),
    ],
)
def test_node_lists_expand_in_their_order(nodes, expected):
    assert membership.expand(nodes) == expected


@pytest.mark.parametrize("nodes", ["n[1-3", "n[a-b]", "n]1[", "n[1-]", "n[]"])
def test_a_node_list_that_cannot_be_read_is_refused(nodes):
    with pytest.raises(UsageError, match="cannot be read"):
        membership.expand(nodes)


def test_slurm_gives_each_task_its_place():
    found = membership.read(SLURM)
    assert found.index == 3 and not found.is_chief
    assert [host.split(":")[0] for host in found.hosts] == [
        "gpu08",
        "gpu09",
        "gpu10",
        "gpu2",
        "login",
    ]
    assert len({host.split(":")[1] for host in found.hosts}) == 1


def test_slurm_tasks_on_one_machine_listen_on_different_ports():
    found = membership.read(
        {**SLURM, "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1"}
    )
    assert [host.split(":")[0] for host in found.hosts] == ["n1", "n1", "n2", "n2", "n3"]
    assert len(set(found.hosts)) == 5


def test_a_step_on_fewer_nodes_than_its_job_counts_its_own():
    step = {
        "SLURM_STEP_NODELIST": "gpu08",
        "SLURM_NTASKS": "1",
        "SLURM_STEP_TASKS_PER_NODE": "1",
        "SLURM_PROCID": "0",
    }
    assert len(membership.read({**SLURM, **step}).hosts) == 1


def test_all_workers_see_the_same_group():
    groups = {membership.read({**SLURM, "SLURM_PROCID": str(place)}).hosts for place in range(5)}
    assert len(groups) == 1


def test_kubernetes_pods_find_each_other_by_the_service():
    assert membership.read(KUBERNETES).hosts == (
        f"job-0.job:{membership.PORT}",
        f"job-1.job:{membership.PORT}",
    )
    listed = {"JOB_COMPLETION_INDEX": "0", "TRELLIS_HOSTS": "x:1, y"}
    assert membership.read(listed).hosts == ("x:1", f"y:{membership.PORT}")


def test_tf_config_wins_and_stays_as_it_is():
    given = {**SLURM, **KUBERNETES, "TF_CONFIG": json.dumps(CLUSTER)}
    found = membership.join(given)
    assert (found.hosts, found.index) == (("a:1", "b:1", "c:1"), 2)
    assert json.loads(given["TF_CONFIG"]) == CLUSTER


def test_joining_tells_tensorflow():
    environment = dict(KUBERNETES)
    membership.join(environment)
    told = json.loads(environment["TF_CONFIG"])
    assert told["task"] == {"type": "worker", "index": 1} and len(told["cluster"]["worker"]) == 2


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "not part of a group.*make launch"),
        ({"SLURM_JOB_NODELIST": "n1", "SLURM_JOB_ID": "1"}, "not part of a group"),
        ({**SLURM, "SLURM_PROCID": "5"}, "worker 5 of 5"),
        ({**SLURM, "SLURM_TASKS_PER_NODE": "1(x4)"}, "5 tasks"),
        ({**SLURM, "SLURM_PROCID": "x"}, "SLURM_PROCID: 'x' is not a number"),
        ({"JOB_COMPLETION_INDEX": "0"}, "TRELLIS_HOSTS"),
        ({**KUBERNETES, "TRELLIS_WORKERS": "1"}, "worker 1 of 1"),
        ({"TF_CONFIG": "{"}, "TF_CONFIG: cannot be read"),
        (
            {
                "TF_CONFIG": '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}'
            },
            "'ps'",
        ),
    ],
)
def test_what_names_no_place_is_refused(environment, says):
    with pytest.raises(UsageError, match=says):
        membership.join(dict(environment))


def test_the_group_is_found_without_tensorflow():
    script = "import sys; from pipelines.cluster import group, manifests, membership; print('tensorflow' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )
