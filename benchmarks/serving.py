"""Asks a served run about pictures from several clients at once.    make bench-serve RUN=<run> ARGS="--pictures photos"

Starts `trellis serve`, as a user would, and ends it. What it prints is what a client waits for, whole requests: base64 and
JSON both ways.
"""

import argparse
import base64
import contextlib
import json
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipelines.system import arithmetic, ports, processes

WAIT_S = 240.0  # for the server, which may have to export first
PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Answer:
    """One request: its status, 0 where none came, and what it took."""

    status: int
    seconds: float


def bodies(folder: Path) -> list[bytes]:
    """A request about each picture of a folder."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in PICTURES]
    found = []
    for file in files:
        image = base64.b64encode(file.read_bytes()).decode()
        document = {"dataframe_records": [{"image": image}]}
        found.append(json.dumps(document).encode())
    if not found:
        raise SystemExit(f"--pictures: {folder} has no JPEG and no PNG")
    return found


def ask(url: str, body: bytes) -> Answer:
    """Sends one request and reads its answer to the end."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(request) as answer:
            json.load(answer)
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except OSError:
        status = 0
    return Answer(status, time.perf_counter() - started)


def summary(answers: Sequence[Answer], seconds: float, clients: int) -> str:
    """Errors, rate and waits, in one line."""
    errors = sum(answer.status != 200 for answer in answers)
    waits = [1000 * answer.seconds for answer in answers]
    ranks = statistics.quantiles(waits, n=20, method="inclusive")
    return (
        f"{len(answers)} requests from {clients} clients: {errors} errors, "
        f"{len(answers) / seconds:.1f} a second, p50 {statistics.median(waits):.0f} ms, "
        f"p95 {ranks[-1]:.0f} ms"
    )


@contextlib.contextmanager
def served(overrides: Sequence[str]) -> Iterator[str]:
    """The address of a server that answers, for as long as it is needed."""
    port = ports.port(None, "make serve ARGS=")
    command, environment = processes.this_tool("serve", *overrides, f"port={port}")
    server = subprocess.Popen(command, env=environment)
    url = f"http://{ports.HOST}:{port}"
    try:
        _wait(server, f"{url}/ping")
        yield f"{url}/invocations"
    finally:
        server.terminate()
        server.wait()


def _wait(server: subprocess.Popen, url: str) -> None:
    until = time.monotonic() + WAIT_S
    while server.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), urllib.request.urlopen(url):
            return
        time.sleep(0.3)
    raise SystemExit("the server did not start; what it said stands above")


def main() -> None:
    """Prints the machine and one line of figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="+", help="run=<run>, and what else `serve` takes")
    parser.add_argument("--pictures", type=Path, required=True, help="a folder")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    asked = parser.parse_intermixed_args()
    pictures = bodies(asked.pictures)
    sent = [pictures[number % len(pictures)] for number in range(asked.requests)]
    with served(asked.overrides) as url:
        ask(url, pictures[0])  # The first one loads and traces.
        started = time.perf_counter()
        with ThreadPoolExecutor(asked.clients) as clients:
            answers = list(clients.map(lambda body: ask(url, body), sent))
        seconds = time.perf_counter() - started
    print(f"{arithmetic.model_name()}, {processes.cores()} cores")
    print(summary(answers, seconds, asked.clients))


if __name__ == "__main__":
    main()
