"""Processes started together: their output, their exit codes, their end."""

import pytest

from pipelines.cluster.group import Group, free_ports


def run(*command: str, restarts: int = 2) -> int:
    return Group(command, workers=2, restarts=restarts, bind=None).run(lambda: None)


def test_every_line_says_whose_it_is(capsys):
    assert run("--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line[:10] for line in lines} == {"[worker 0]", "[worker 1]"}


def test_a_mistake_is_not_made_again(capsys):
    assert run("no_such_verb") == 2
    printed = capsys.readouterr().out
    assert "ended with exit code 2" in printed and "start again" not in printed


def test_when_the_check_raises_all_workers_end():
    group = Group(["ui"], workers=2, restarts=0, bind=None)

    def check() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        group.run(check)
    assert all(process.poll() is not None for process in group._processes)


def test_ports_are_not_given_twice():
    assert len(set(free_ports(20))) == 20
