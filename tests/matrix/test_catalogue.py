"""The catalogue: complete, reachable without TensorFlow, its page drawn from its record; and a sample of it, measured."""

import subprocess
import sys

import pytest

from pipelines import config
from pipelines.catalogue import official
from pipelines.commands import list as listing
from pipelines.usage import UsageError
from tests.conftest import ROOT
from tests.matrix import page, record, registered, stages

MOST_S = 100  # CPU seconds that a sample may be expected to take


def test_every_registered_experiment_has_a_row_and_no_other() -> None:
    assert sorted(record.read()) == sorted(registered.experiments())


def test_every_file_of_the_catalogue_is_of_a_registered_experiment() -> None:
    assert set(record.names()) <= set(registered.experiments())


def test_the_page_is_drawn_from_the_record() -> None:
    assert page.FILE.read_text() == page.text(record.read()), "make test-matrix writes both"


def test_the_record_names_packages_and_no_folder_of_a_machine() -> None:
    words = (
        'File "/home/me/.venv/lib/python3.11/site-packages/official/a.py", File "/x/pipelines/b.py"'
    )
    assert stages.without_folders(words) == 'File "official/a.py", File "pipelines/b.py"'
    assert not [line for line in record.FILE.read_text().splitlines() if '"/' in line]


def test_what_does_not_work_says_why() -> None:
    rows = record.read().values()
    assert not [
        row for row in rows if row["status"] in (record.FAILS, record.UPSTREAM) and not row["why"]
    ]


def test_settings_that_were_measured_are_those_that_are_there() -> None:
    rows = record.read()
    measured = {name: rows[name]["measured"] for name in record.names() if "measured" in rows[name]}
    assert {name: record.version(name) for name in measured} == measured, "make test-matrix"


def test_an_official_name_is_an_experiment_unless_ours_has_that_name() -> None:
    assert config.compose(["experiment=resnet_imagenet"]).garden == "resnet_imagenet"
    assert config.compose(["experiment=retinanet"]).garden == "retinanet_resnetfpn_coco"
    assert config.compose(["experiment=catalogue/retinanet"]).garden == "retinanet"


def test_an_official_name_that_cannot_work_says_why() -> None:
    with pytest.raises(UsageError, match=r"broken upstream, .*projects\.panoptic\.dataloaders"):
        config.compose(["experiment=panoptic_fpn_coco"])


def test_the_table_is_printed_whole_and_in_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main(["all"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{name} " in printed for name in registered.experiments())
    listing.main(["all", "status=works", "format=csv"])
    working = [row for row in record.read().values() if row["status"] == record.WORKS]
    assert capsys.readouterr().out.count("\n") == len(working) + 1
    with pytest.raises(UsageError, match="did you mean works"):
        official.answer({"status": "work"})


def test_any_eleven_commits_in_a_row_reach_every_family_for_a_bounded_cost() -> None:
    samples = [record.sample(number) for number in range(200, 200 + record.TURNS)]
    names = {name for sample in samples for name in (*sample.whole, *sample.brief)}
    left_out = [family for family, members in record.families().items() if not names & set(members)]
    assert left_out == []
    assert max(sample.cost for sample in samples) <= MOST_S
    later = [record.sample(number + record.TURNS) for number in range(200, 200 + record.TURNS)]
    assert names != {name for sample in later for name in (*sample.whole, *sample.brief)}


def test_what_is_neither_written_nor_refused_does_not_count_as_working() -> None:
    answers = {"saved_model": "ok", "tflite": "refused: the converter refuses: such"}
    assert record._fault_of_exports(answers, 0) == ""
    assert "KeyError: 'logits'" in record._fault_of_exports(
        {**answers, "tflite": "KeyError: 'logits'"}, 0
    )
    assert "tflite: signal 11" in record._fault_of_exports({"saved_model": "ok"}, 11)


def number_of_this_commit() -> int:
    """How many commits led to this one; of a copy that does not hold them, its name as a number."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    if git("rev-parse", "--is-shallow-repository") == "false":
        return int(git("rev-list", "--count", "HEAD"))
    return int(git("rev-parse", "HEAD") or "0", 16)


@pytest.mark.slow
def test_a_sample_chosen_by_the_commit_works(tmp_path) -> None:
    sample = record.sample(number_of_this_commit())
    options = [f"folder={tmp_path}", "keep=no", "again=1"]
    for option in ("only", "brief"):
        names = sample.whole if option == "only" else sample.brief
        if names:
            options.append(f"{option}={','.join(names)}")
    tried = subprocess.run(
        [sys.executable, "-m", "tests.matrix", *options],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tried.returncode == 0, tried.stdout + tried.stderr
