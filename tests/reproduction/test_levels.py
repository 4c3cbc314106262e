"""How far a run can be made again, and what keeps it from the next level."""

import json

import pytest

from pipelines.reproduction import levels

LOCK = """numpy==2.3.5 ; python_full_version < '4' \\
    --hash=sha256:00
tomli==2.0 ; python_full_version < '3' \\
    --hash=sha256:00
typing_extensions==4.12.2
"""
PACKAGES = ["numpy==2.3.5", "typing-extensions==4.12.2", "pip==25.0"]


def texts(**changes) -> dict[str, str]:
    """What a run records that lacks nothing but a repeat, with these changes."""
    tree = {"commit": "c1", "dirty": False, "changed_meanwhile": False, **changes.get("git", {})}
    environment = {
        "git": tree,
        "packages": changes.get("packages", PACKAGES),
        "determinism_class": {"threads": changes.get("threads", 1)},
    }
    shard = {"sha256": changes.get("sha256", "d1")}
    return {
        "config.yaml": f"name: resnet\ndeterminism: {changes.get('determinism', 'true')}\n"
        f"task: {{init_checkpoint: {changes.get('init', 'null')}}}\n",
        "manifest.json": json.dumps({"fingerprint": "f1", "splits": {"train": {"shards": [shard]}}}),
        "environment.json": json.dumps(environment),
        "summary.json": json.dumps({"run_dir": "/runs/one", **changes.get("summary", {})}),
        "diff.patch": changes.get("diff", ""),
    }  # fmt: skip


WITNESSES = [{"how": "check", "experiment": "resnet", "class": levels.of_class(texts())}]


@pytest.mark.parametrize(
    ("changes", "level", "reason"),
    [
        ({}, "R3", "make reproduce RUN=/runs/one"),
        ({"summary": {"repeats": [{"run_dir": "/runs/two"}]}}, "R4", None),
        ({"threads": 2}, "R2", "make check EXP=resnet ARGS=--determinism"),
        ({"determinism": "false"}, "R2", "determinism=off"),
        ({"packages": PACKAGES[1:]}, "R1", "1 packages are not those of requirements.lock (numpy is not"),
        ({"packages": ["numpy==2.3.4", *PACKAGES[1:]]}, "R1", "numpy 2.3.4 instead of ==2.3.5"),
        ({"git": {"dirty": True}}, "R1", "uncommitted changes"),
        ({"git": {"commit": None}}, "R1", "no git commit"),
        ({"init": "/copy/ckpt-1"}, "R0", "by their path alone (/copy/ckpt-1)"),
        ({"init": "/copy/ckpt-1", "summary": {"starting_weights": {"sha256": "w1"}}}, "R3", "not made again"),
        ({"sha256": ""}, "R0", "the digests of its data"),
        # A repeat does not make up for code that is in no commit.
        ({"diff": "+x", "summary": {"repeats": [{}]}}, "R1", "uncommitted changes"),
    ],
)  # fmt: skip
def test_a_run_has_the_level_below_the_first_thing_that_it_lacks(changes, level, reason):
    found = levels.of(texts(**changes), LOCK, WITNESSES)
    assert found.name == level
    assert reason is None or reason in found.lacking
    assert found.line().startswith(f"level {level} of R4: ")


def test_without_a_lock_the_environment_is_not_locked():
    assert levels.of(texts(), None, WITNESSES).name == "R1"
    damaged = levels.of(texts(), "<<<<<<< HEAD\n", WITNESSES)
    assert damaged.name == "R1" and "cannot be read" in damaged.lacking


def test_what_was_shown_in_a_class_counts_for_later_runs_of_it(tmp_path):
    runs_dir = tmp_path / "runs"
    assert levels.shown(runs_dir) == []
    levels.witness(runs_dir, "check", texts())
    assert levels.of(texts(), LOCK, levels.shown(runs_dir)).name == "R3"
    assert levels.of(texts(threads=4), LOCK, levels.shown(runs_dir)).name == "R2"
