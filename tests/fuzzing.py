"""Property tests over generated input: few examples in `make test`, as many as fit into a stated time in `make test-fuzz`.

    python -m tests.fuzzing 300        300 seconds, round after round, each with a seed of its own that is printed

It is Hypothesis' search, no fuzzer of machine code: valid files are mutated byte by byte, and in the long run the number of our
own lines that an example reaches is what Hypothesis drives up (`guided`). What it finds is kept in `.hypothesis/` and tried first
in the next round; whoever corrects such a fault adds the example to the test by `@example`, where it stays.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, target
from hypothesis import strategies as st

TIMES = "FUZZ_TIMES"  # how many times the examples of `make test` a round tries
UNTIL = (
    "FUZZ_UNTIL"  # from when on no further test begins (tests/conftest.py), in seconds since 1970
)
LONG = TIMES in os.environ
KEPT = Path(__file__).parent.parent / ".hypothesis"


def examples(count: int) -> Any:
    """Tries so many examples in `make test`, the same ones every time; new ones, and many times as many, in `make test-fuzz`."""
    mark = pytest.mark.fuzz
    unhealthy = [
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
    ]
    tried = settings(
        max_examples=count * int(os.environ.get(TIMES, 1)), deadline=None, derandomize=not LONG, print_blob=True,
        suppress_health_check=unhealthy,
    )  # fmt: skip
    return lambda test: mark(tried(test))


@contextmanager
def guided(*modules: ModuleType) -> Iterator[None]:
    """Tells Hypothesis, in a long run, how many different lines of some modules an example reached, to find those that reach more."""
    files, reached = {module.__file__ for module in modules}, set[tuple[str, int]]()

    def step(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return step

    before = sys.gettrace()
    if LONG:
        sys.settrace(step)
    try:
        yield
    finally:
        if LONG:
            sys.settrace(before)
            target(float(len(reached)), label="lines")


SPECIAL = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\x80\0",
    b"\n",
    b"9" * 5000,
    b"[",
    b"{",
    b"<",
    b"&",
]
_places = st.one_of(st.integers(0, 63), st.integers(0, 2**16))
_changes = st.one_of(
    st.tuples(st.just("flip"), _places, st.integers(0, 7)),
    st.tuples(
        st.just("write"),
        _places,
        st.one_of(st.sampled_from(SPECIAL), st.binary(min_size=1, max_size=4)),
    ),
    st.tuples(
        st.just("insert"),
        _places,
        st.one_of(st.sampled_from(SPECIAL), st.binary(min_size=1, max_size=4)),
    ),
    st.tuples(st.just("remove"), _places, st.integers(1, 40)),
    st.tuples(st.just("repeat"), _places, st.integers(1, 40)),
    st.tuples(st.just("cut"), _places, st.none()),
)


def changed(content: bytes, changes: list[tuple[str, int, Any]]) -> bytes:
    """`content` after some changes of single bytes and stretches."""
    for kind, place, what in changes:
        at = place % max(1, len(content))
        before, after = content[:at], content[at:]
        if kind == "flip":
            content = before + bytes([after[0] ^ 1 << what]) + after[1:] if after else content
        elif kind == "write":
            content = before + what + after[len(what) :]
        elif kind == "insert":
            content = before + what + after
        elif kind == "remove":
            content = before + after[what:]
        elif kind == "repeat":
            content = before + after[:what] + after
        else:
            content = before
    return content


def mutated(contents: list[bytes], most: int = 4) -> st.SearchStrategy[bytes]:
    """One of some valid files, with up to `most` changes."""
    return st.builds(changed, st.sampled_from(contents), st.lists(_changes, max_size=most))


def main(seconds: float) -> int:
    """Runs rounds of all property tests until the time is over; 1 when one of them failed, with what it failed on."""
    until, rounds = time.time() + seconds, 0
    while time.time() < until:
        seed, rounds = random.randrange(2**32), rounds + 1
        print(
            f"round {rounds}, seed {seed}, {max(0, until - time.time()):.0f} s left; what is found is kept in {KEPT}",
            flush=True,
        )
        # In another order each time: the time may be over before the last.
        files = [
            str(file)
            for file in Path(__file__).parent.rglob("test_*.py")
            if "@examples(" in file.read_text()
        ]
        random.shuffle(files)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "fuzz",
            "-p",
            "no:cacheprovider",
            f"--hypothesis-seed={seed}",
            *files,
        ]
        if subprocess.run(
            command, env={**os.environ, TIMES: "5", UNTIL: str(until)}, check=False
        ).returncode not in (0, 5):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
