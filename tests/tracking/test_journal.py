"""The journal."""

from pathlib import Path

import pytest

from pipelines.system import durable
from pipelines.tracking import journal


def test_what_is_appended_is_read_in_order(tmp_path: Path) -> None:
    journal.repair(tmp_path)
    for step in range(3):
        journal.append(tmp_path, "metrics", step=step, values={"loss": step / 2})
    assert [event["step"] for event, _ in journal.read(tmp_path)] == [0, 1, 2]


def test_reading_goes_on_from_an_offset(tmp_path: Path) -> None:
    journal.repair(tmp_path)
    journal.append(tmp_path, "tags", values={"a": "1"})
    [(_, offset)] = journal.read(tmp_path)
    journal.append(tmp_path, "tags", values={"b": "2"})
    assert [event["values"] for event, _ in journal.read(tmp_path, offset)] == [{"b": "2"}]


def test_an_unfinished_last_line_is_not_read_and_is_cut_off(tmp_path: Path) -> None:
    journal.repair(tmp_path)
    journal.append(tmp_path, "tags", values={"a": "1"})
    path = journal.folder(tmp_path) / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "metr')
    assert len(list(journal.read(tmp_path))) == 1
    journal.repair(tmp_path)
    assert path.read_bytes() == whole


def test_a_journal_that_ends_at_any_byte_is_read_to_its_last_whole_line_and_continued(
    tmp_path: Path,
) -> None:
    journal.repair(tmp_path)
    for step in range(4):
        journal.append(tmp_path, "metrics", step=step, values={"größe": step / 3})
    path = journal.folder(tmp_path) / "journal.jsonl"
    whole = path.read_bytes()
    ends = [after for _, after in journal.read(tmp_path)]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        assert [after for _, after in journal.read(tmp_path)] == [
            end for end in ends if end <= length
        ]
        journal.repair(tmp_path)
        journal.append(tmp_path, "close", status="KILLED")
        events = [event["event"] for event, _ in journal.read(tmp_path)]
        assert events == ["metrics"] * sum(end <= length for end in ends) + ["close"]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e-300, 0.1, 3])
def test_figures_come_back_as_they_were(tmp_path: Path, value: float) -> None:
    journal.repair(tmp_path)
    journal.append(tmp_path, "metrics", step=1, values={"loss": journal.spell(value)})
    assert journal.metrics(tmp_path)["loss"][1] == value


def test_the_journal_of_a_killed_run_is_closed_once(tmp_path: Path) -> None:
    journal.repair(tmp_path)
    journal.append(tmp_path, "open", session=1)
    journal.close_abandoned(tmp_path)
    journal.append(tmp_path, "tags", values={"added": "later"})
    journal.close_abandoned(tmp_path)
    assert [event["event"] for event, _ in journal.read(tmp_path)] == ["open", "close", "tags"]


def test_the_journal_of_a_living_run_is_left_open(tmp_path: Path) -> None:
    journal.repair(tmp_path)
    journal.append(tmp_path, "open", session=1)
    with durable.locked(journal.folder(tmp_path) / "run.lock"):
        journal.close_abandoned(tmp_path)
    assert [event["event"] for event, _ in journal.read(tmp_path)] == ["open"]
