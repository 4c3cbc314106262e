"""The Slurm script and the Kubernetes manifest: read back by bash and YAML, and agreeing with what a worker understands."""

import shlex
import subprocess

import pytest
import yaml

from pipelines.cluster import membership
from pipelines.commands import launch
from pipelines.usage import UsageError

CHOICE = ["experiment=resnet", "workers=3", "restarts=2", "dataset.labels=['a b',c]"]


def printed(capsys, *overrides: str) -> str:
    assert launch.main([*CHOICE, *overrides]) == 0
    return capsys.readouterr().out


def test_the_slurm_script_is_bash_and_starts_the_workers(capsys, tmp_path):
    script = printed(capsys, "print=slurm", f"run_dir={tmp_path / 'run'}")
    assert subprocess.run(["bash", "-n"], check=False, input=script, text=True).returncode == 0
    assert "#SBATCH --nodes=3\n" in script
    starts = [shlex.split(line) for line in script.splitlines() if "srun" in line and "trellis train" in line]
    words = starts[0]
    assert {"experiment=resnet", "runtime=multi_worker", "dataset.labels=['a b',c]", f"run_dir='{tmp_path / 'run'}'"} <= set(words)
    assert not {"workers=3", "print=slurm"} & set(words)
    assert script.index("trellis data") < script.index("trellis train")


def test_the_slurm_script_starts_a_lost_group_again_and_no_other(capsys, tmp_path):
    script = printed(capsys, "print=slurm")
    (tmp_path / "srun").write_text('#!/bin/bash\n[[ "$*" == *"trellis data"* ]] || { echo start >> starts; exit "$CODE"; }\n')
    (tmp_path / "srun").chmod(0o755)
    for code, starts in ((0, 1), (75, 3), (137, 3), (2, 1), (143, 1)):
        (tmp_path / "starts").unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", "-s"], check=False, input=script, text=True, cwd=tmp_path,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(tmp_path), "CODE": str(code)},
        )  # fmt: skip
        assert (done.returncode, len((tmp_path / "starts").read_text().splitlines())) == (code, starts)


def test_the_kubernetes_manifest_is_an_indexed_job_behind_a_headless_service(capsys):
    service, job = yaml.safe_load_all(printed(capsys, "print=kubernetes"))
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 3, 3)
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert pod["initContainers"][0]["command"][:2] == ["trellis", "data"]
    words = pod["containers"][0]["command"]
    assert {"runtime=multi_worker", "dataset.labels=['a b',c]", "data_dir='/trellis/data'"} <= set(words)
    assert any(word.startswith("run_dir='/trellis/runs/resnet/") for word in words)


def test_pods_of_the_manifest_find_each_other(capsys):
    _, job = yaml.safe_load_all(printed(capsys, "print=kubernetes"))
    given = {item["name"]: item["value"] for item in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    name = job["metadata"]["name"]
    found = membership.read({**given, "JOB_COMPLETION_INDEX": "2", "HOSTNAME": f"{name}-2"})
    assert found.index == 2 and found.hosts[0].startswith(f"{name}-0.{name}:") and len(found.hosts) == 3


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
