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


@pytest.fixture
def ending(tmp_path, monkeypatch):
    """Lets worker n end with the n-th of `codes` (below 0: by a signal) after the n-th of `delays`; counts starts."""
    (tmp_path / "sitecustomize.py").write_text(
        "import json, os, time\n"
        "if 'TF_CONFIG' in os.environ:\n"
        "    place = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"
        "    open(os.environ['STARTS'], 'a').write('x')\n"
        "    time.sleep(float(os.environ['DELAYS'].split()[place]))\n"
        "    code = int(os.environ['CODES'].split()[place])\n"
        "    os.kill(os.getpid(), -code) if code < 0 else os._exit(code)\n"
        "    time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))

    def end(codes: str, delays: str = "0 0") -> tuple[int, int]:
        (tmp_path / "starts").unlink(missing_ok=True)
        monkeypatch.setenv("CODES", codes)
        monkeypatch.setenv("DELAYS", delays)
        code = run("list", restarts=1)
        return code, len((tmp_path / "starts").read_text()) // 2

    return end


@pytest.mark.parametrize(
    ("codes", "delays", "expected"),
    [
        ("0 0", "0 0", (0, 1)),
        (
            "75 2",
            "0 0.5",
            (2, 1),
        ),  # The one that ended first could not go on without the one that ended last.
        ("1 75", "0.5 0", (1, 1)),
        ("75 75", "0 0", (75, 2)),
        ("75 -9", "0 0.5", (137, 2)),
        ("1 -9", "0 0.5", (137, 2)),
        ("-6 75", "0 0", (134, 2)),
        ("69 75", "0.3 0", (69, 1)),  # On one machine nobody's lock outlives its owner.
        ("-15 75", "0 0.3", (143, 1)),
    ],
)
def test_a_group_is_judged_by_what_each_worker_says(ending, codes, delays, expected):
    assert ending(codes, delays) == expected


def test_ports_are_not_given_twice():
    assert len(set(free_ports(20))) == 20
