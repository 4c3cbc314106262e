"""Files that survive a killed process: whole or absent, held by one, appended to line by line."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from pipelines.system import durable, processes

HOLDING = "from pathlib import Path; from pipelines.system import durable\nwith durable.locked(Path({file!r})): print('held', flush=True); input()"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", [Path, epath.Path])
def test_a_file_is_replaced_whole(tmp_path: Path, kind: type) -> None:
    file = kind(tmp_path) / "a" / "b"
    durable.write_whole(file, "one")
    durable.write_whole(file, b"two")
    assert file.read_text() == "two" and names(tmp_path / "a") == ["b"]


@pytest.mark.parametrize("kind", [Path, epath.Path])
def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path, kind: type) -> None:
    file = kind(tmp_path) / "b"
    durable.write_whole(file, "one")
    with pytest.raises(ValueError), durable.whole(file) as content:
        content.write(b"tw")
        raise ValueError
    assert file.read_text() == "one" and names(tmp_path) == ["b"]


def test_what_is_not_whole_may_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    with durable.whole(tmp_path / "b", tmp_path / "beside") as content:
        assert names(tmp_path) == ["beside"] and len(names(tmp_path / "beside")) == 1
        content.write(b"one")
    assert names(tmp_path) == ["b", "beside"] and names(tmp_path / "beside") == []


def test_bytes_that_are_no_text_come_back_as_they_were(tmp_path: Path) -> None:
    content = b"gr\xf6\xdfe\r\n\xe2\x82\xac\n"
    (tmp_path / "a").write_bytes(content)
    durable.write_whole(tmp_path / "b", durable.read_text(tmp_path / "a"))
    assert (tmp_path / "b").read_bytes() == content


def test_a_lock_has_one_holder_who_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "new" / "lock"
    assert not durable.held(file)
    command = [sys.executable, "-c", HOLDING.format(file=str(file))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=processes.ROOT, **pipes) as other:  # type: ignore[call-overload]
        assert other.stdout.readline() == "held\n"
        assert durable.held(file) and durable.holder(file) == other.pid
        with pytest.raises(BlockingIOError), durable.locked(file, wait=False):
            pass
        waiting: list[bool] = []
        with durable.locked(file, waiting=lambda: (waiting.append(True), other.kill())[0]):  # type: ignore[func-returns-value]
            assert waiting and durable.holder(file) == os.getpid()
    assert not durable.held(file)


def _append(file: Path, writer: int) -> None:
    for number in range(200):
        durable.append(
            file, durable.as_lines({"writer": writer, "number": number, "text": "x" * 100})
        )


def test_lines_of_several_writers_stay_whole(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append, args=(file, writer)) for writer in range(2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    entries = [entry for entry, _ in durable.read_lines(file)]
    for writer in range(2):
        assert [entry["number"] for entry in entries if entry["writer"] == writer] == list(
            range(200)
        )


def test_a_torn_last_line_is_not_read_and_can_be_cut_off_at_any_byte(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    assert list(durable.read_lines(file)) == []
    durable.cut_torn_line(file)
    whole = durable.as_lines({"größe": 1}, {"größe": float("nan")}).encode()
    first = whole.index(b"\n") + 1
    for length in range(len(whole) + 1):
        file.write_bytes(whole[:length])
        complete = (length >= first) + (length == len(whole))
        offsets = [after for _, after in durable.read_lines(file)]
        assert offsets == [first, len(whole)][:complete]
        durable.cut_torn_line(file)
        assert file.stat().st_size == (offsets or [0])[-1]
        durable.append(file, durable.as_lines({"size": 2}), to_disk=True)
        assert [entry for entry, _ in durable.read_lines(file, (offsets or [0])[-1])] == [
            {"size": 2}
        ]


def test_lines_for_every_reader_hold_no_nan() -> None:
    with pytest.raises(ValueError):
        durable.as_lines({"loss": float("nan")}, allow_nan=False)
