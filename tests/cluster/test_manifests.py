"""The Slurm script and the Kubernetes manifest: read by bash and YAML, and agreeing with what a worker understands."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.cluster import manifests, membership
from pipelines.commands import launch
from pipelines.usage import ExitCode, UsageError

ROOT = Path(__file__).parent.parent.parent
CHOICE = ["experiment=resnet", "workers=3", "restarts=2", "dataset.labels=['a b',c]"]


def printed(capsys, *overrides: str) -> str:
    assert launch.main([*CHOICE, *overrides]) == 0
    return capsys.readouterr().out


def test_the_slurm_script_is_bash_and_starts_the_workers(capsys, tmp_path):
    script = printed(capsys, "print=slurm", f"run_dir={tmp_path / 'run'}")
    assert subprocess.run(["bash", "-n"], check=False, input=script, text=True).returncode == 0
    assert "#SBATCH --nodes=3\n" in script
    starts = [
        shlex.split(line)
        for line in script.splitlines()
        if "srun" in line and "trellis train" in line
    ]
    words = starts[0]
    assert {
        "experiment=resnet",
        "runtime=multi_worker",
        "dataset.labels=['a b',c]",
        f"run_dir='{tmp_path / 'run'}'",
    } <= set(words)
    assert not {"workers=3", "print=slurm"} & set(words)
    assert script.index("trellis data") < script.index("trellis train")


@pytest.mark.parametrize("kind", manifests.KINDS)
def test_every_value_of_a_template_is_filled_in(capsys, kind):
    assert "{{" not in printed(capsys, f"print={kind}")


SRUN = """#!/bin/bash
# Stands in for srun: runs the workers here, each in a session of its own, and returns the highest of their exit codes.
printf '%s\\n' "$*" >> calls
while [[ "$1" == --* ]]; do [[ "$1" == --ntasks=* ]] && tasks="${1#*=}"; shift; done
workers=()
for ((number = 0; number < ${tasks:-3}; number++)); do SLURM_PROCID=$number setsid "$@" & workers+=($!); done
if [ -n "${STOP:-}" ] && [ -z "${tasks:-}" ]; then
  for number in 0 1 2; do until [ -e "ready-$number" ]; do sleep 0.02; done; done
  for worker in "${workers[@]}"; do kill -TERM -- "-$worker"; done
fi
highest=0
for worker in "${workers[@]}"; do wait "$worker"; code=$?; if (( code > highest )); then highest=$code; fi; done
exit "$highest"
"""
TRELLIS = """#!/bin/bash
# Stands in for trellis: ends as CODES says for this worker; "lost" takes its shell along, as the loss of a node does.
if [ "$1" = data ]; then exit 0; fi
if [ -n "${STOP:-}" ]; then
  trap 'sleep 0.2; touch "saved-$SLURM_PROCID"; exit 143' TERM
  touch "ready-$SLURM_PROCID"
  while true; do sleep 0.02; done
fi
read -r -a codes <<< "$CODES"
case "${codes[SLURM_PROCID]}" in
  lost) kill -9 $PPID $$ ;;
  killed) kill -9 $$ ;;
  *) exit "${codes[SLURM_PROCID]}" ;;
esac
"""


@pytest.fixture
def slurm(capsys, tmp_path):
    """Runs the printed script with stand-ins for srun, sleep and workers; returns its exit code and srun's calls."""
    script = printed(capsys, "print=slurm", f"run_dir={tmp_path / 'a run'}")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name, text in (
        ("srun", SRUN),
        (
            "pause/sleep",
            '#!/bin/bash\n(( ${1%.*} < 60 )) && exec /bin/sleep "$1"; echo "$1" >> pauses\n',
        ),
        (".venv/bin/trellis", TRELLIS),
        (".venv/bin/python", f'#!/bin/bash\nexec "{sys.executable}" "$@"\n'),
    ):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)

    def run(**variables: str) -> tuple[int, list[str]]:
        (tmp_path / "calls").unlink(missing_ok=True)
        path = f"{tmp_path}:{tmp_path / 'pause'}:/usr/bin:/bin"
        environment = {
            "PATH": path,
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            **variables,
        }
        done = subprocess.run(
            ["bash", "-s"], check=False, input=script, text=True, cwd=tmp_path, env=environment
        )
        return done.returncode, (tmp_path / "calls").read_text().splitlines()

    return run


@pytest.mark.parametrize(
    ("codes", "ends_with", "starts"),
    [
        ("0 0 0", 0, 1),
        (
            "75 75 killed",
            137,
            3,
        ),  # One was killed: srun says 137, and the two others could not go on.
        ("lost 75 75", 137, 3),
        ("75 75 75", 75, 3),
        ("75 134 75", 134, 3),  # TensorFlow aborts a worker that another has left.
        ("1 75 75", 1, 1),  # srun says 75, but one failed by itself and would again.
        ("75 2 75", 2, 1),
        ("134 75 1", 1, 1),
        ("1 killed 75", 137, 3),  # What the killed one left behind may fail in any way.
        ("2 killed 75", 2, 1),
        ("69 75 134", 69, 3),  # The run directory is in use, perhaps still by a node that has died.
        ("143 143 143", 143, 1),
        ("143 137 75", 143, 1),
    ],
)
def test_the_slurm_script_starts_a_group_again_by_what_each_worker_says(
    slurm, tmp_path, codes, ends_with, starts
):
    code, calls = slurm(CODES=codes)
    trained = [call for call in calls if "trellis train" in call]
    assert (code, len(trained)) == (ends_with, starts)
    assert not list((tmp_path / "a run" / "workers").iterdir())


def test_the_slurm_script_waits_for_the_lock_of_a_node_that_died(slurm, tmp_path):
    slurm(CODES="75 75 75")
    assert not (tmp_path / "pauses").exists()
    slurm(CODES="69 75 75")
    assert (tmp_path / "pauses").read_text().split() == ["120", "120", "120"]


def test_the_slurm_script_lets_workers_save_when_the_time_is_up(slurm, tmp_path):
    code, calls = slurm(STOP="1")
    assert (code, len(calls)) == (143, 2)
    assert {file.name for file in tmp_path.glob("saved-*")} == {"saved-0", "saved-1", "saved-2"}


def test_when_srun_itself_fails_it_is_its_word_that_counts(slurm, tmp_path):
    (tmp_path / "srun").write_text(
        '#!/bin/bash\necho "$*" >> calls; [[ "$*" == *"trellis data"* ]]\n'
    )
    code, calls = slurm()
    assert (code, len(calls)) == (1, 2)


def test_srun_is_told_the_cores_that_the_job_has(slurm):
    for variables, expected in (({"SLURM_CPUS_PER_TASK": "6"}, "6"), ({}, "1")):
        _, calls = slurm(CODES="0 0 0", **variables)
        assert [f"--cpus-per-task={expected}" in call.split() for call in calls] == [True, True]


def test_the_kubernetes_manifest_is_an_indexed_job_behind_a_headless_service(capsys):
    service, job = yaml.safe_load_all(printed(capsys, "print=kubernetes"))
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["selector"] == {
        "job-name": job["metadata"]["name"]
    }
    assert (
        job["spec"]["completionMode"],
        job["spec"]["completions"],
        job["spec"]["parallelism"],
    ) == ("Indexed", 3, 3)
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert pod["initContainers"][0]["command"][:2] == ["trellis", "data"]
    words = pod["containers"][0]["command"]
    assert {"runtime=multi_worker", "dataset.labels=['a b',c]", "data_dir='/trellis/data'"} <= set(
        words
    )
    assert any(word.startswith("run_dir='/trellis/runs/resnet/") for word in words)


@pytest.mark.parametrize(
    ("container", "code", "action"),
    [
        ("worker", ExitCode.FAILED, "FailJob"),
        ("worker", ExitCode.REFUSED, "FailJob"),
        ("worker", ExitCode.UNDECIDED, "FailJob"),
        (
            "worker",
            ExitCode.IN_USE,
            "Count",
        ),  # On a shared disk a lock outlives the node that held it.
        ("worker", ExitCode.PEER_GONE, "Count"),
        ("worker", 137, "Count"),
        ("worker", 143, "Count"),
        ("data", ExitCode.REFUSED, "FailJob"),
        ("data", ExitCode.FAILED, None),
    ],
)
def test_kubernetes_ends_the_job_only_for_what_would_come_again(capsys, container, code, action):
    _, job = yaml.safe_load_all(printed(capsys, "print=kubernetes"))
    assert _first_action(job["spec"]["podFailurePolicy"]["rules"], container, code) == action


def _first_action(rules: list[dict], container: str, code: int) -> str | None:
    """The action of the first rule that a container's exit code meets, as Kubernetes goes through them."""
    for rule in rules:
        on = rule["onExitCodes"]
        if on["containerName"] == container and (code in on["values"]) == (on["operator"] == "In"):
            return rule["action"]
    return None


def test_pods_of_the_manifest_find_each_other(capsys):
    _, job = yaml.safe_load_all(printed(capsys, "print=kubernetes"))
    given = {
        item["name"]: item["value"]
        for item in job["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    name = job["metadata"]["name"]
    found = membership.read({**given, "JOB_COMPLETION_INDEX": "2", "HOSTNAME": f"{name}-2"})
    assert (
        found.index == 2
        and found.hosts[0].startswith(f"{name}-0.{name}:")
        and len(found.hosts) == 3
    )


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["experiment=resnet", "print=pbs"], "there are: slurm, kubernetes"),
        (["experiment=resnet", "runtime=cpu"], "runtime=multi_worker only"),
        (["experiment=resnet", "workers=0"], "at least 1 worker"),
        (["workers=2"], "no experiment given"),
    ],
)
def test_what_cannot_be_launched_is_refused(overrides, says):
    with pytest.raises(UsageError, match=says):
        launch.main(overrides)
