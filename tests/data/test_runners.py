"""One flag moves a build: real runners, real processes, equal bytes."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.config import compose, options
from pipelines.data import dask_workers, runners
from pipelines.data.manifest import Manifest
from pipelines.usage import UsageError
from tests.data.conftest import coco, coco_at

Build = Callable[..., Manifest]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(port: int) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError(f"nothing listens on {port}")


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    file, _ = coco(tmp_path / "images", 40)
    return [
        *coco_at(file),
        "dataset.shards={train:5,validation:2}",
    ]


@pytest.fixture
def reference(build: Build, overrides: list[str], tmp_path: Path) -> str:
    return build(*overrides, "runner=direct", data_dir=tmp_path / "direct").to_json()


@pytest.mark.slow
def test_several_processes_write_the_same_bytes_and_keep_quiet(
    build: Build,
    overrides: list[str],
    reference: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    capfd.readouterr()
    assert (
        build(
            *overrides, "runner=local", "runner.processes=2", data_dir=tmp_path / "local"
        ).to_json()
        == reference
    )
    printed = capfd.readouterr()
    assert "building" in printed.out and "INFO" not in printed.err and "WARNING" not in printed.err


@pytest.mark.slow
def test_a_portable_job_server_writes_the_same_bytes(
    build: Build, overrides: list[str], reference: str, tmp_path: Path
) -> None:
    port = free_port()
    with running("apache_beam.runners.portability.local_job_service_main", "--port", str(port)):
        wait_for(port)
        built = build(
            *overrides,
            "runner=portable",
            f"runner.options.job_endpoint=localhost:{port}",
            data_dir=tmp_path / "portable",
        )
    assert built.to_json() == reference


@pytest.mark.slow
def test_a_dask_scheduler_with_two_workers_writes_the_same_bytes(
    build: Build, overrides: list[str], reference: str, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed")
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    worker = (
        "distributed.cli.dask_worker",
        address,
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
    )
    with running(
        "distributed.cli.dask_scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-dashboard",
    ):
        wait_for(port)
        with running(*worker), running(*worker):
            with distributed.Client(address) as client:
                client.wait_for_workers(2)
            built = build(
                *overrides,
                "runner=dask",
                f"runner.options.dask_client_address={address}",
                data_dir=tmp_path / "dask",
            )
            with distributed.Client(address) as client:
                used = client.run(
                    lambda: (
                        {"pipelines.data.records", "tensorflow"} & set(__import__("sys").modules)
                    )
                )
    # Both have imported what writes records, to whichever the scheduler gave so small a build.
    assert list(used.values()) == [{"pipelines.data.records"}] * 2
    assert built.to_json() == reference


def test_a_dask_scheduler_that_does_not_answer_is_told_before_the_source_is_listed() -> None:
    pytest.importorskip("distributed")
    address = f"tcp://127.0.0.1:{free_port()}"
    options = {"dask_client_address": address, "dask_connection_timeout": 1}
    with (
        pytest.raises(UsageError, match=f"no scheduler answers at {address}"),
        dask_workers.importing({"engine": "dask", "options": options}),
    ):
        pytest.fail("it goes on without a scheduler")


GIVEN = {
    "dask": {"dask_client_address": "tcp://scheduler:8786"},
    "portable": {"job_endpoint": "localhost:8099"},
    "flink": {"flink_master": "host:8081"},
    "spark": {"spark_master_url": "spark://host:7077"},
    "dataflow": {"project": "p", "region": "r", "temp_location": "gs://b/t"},
}


@pytest.mark.parametrize("engine", [name for name in options("runner") if name != "dataflow"])
def test_every_runner_composes_and_its_options_are_beams(engine: str) -> None:
    given = [f"runner.options.{name}={value}" for name, value in GIVEN.get(engine, {}).items()]
    runner, composed = runners.create(compose([f"runner={engine}", *given]).runner)
    assert type(runner).__name__ == {"local": "FnApiRunner", "direct": "FnApiRunner"}.get(
        engine, f"{engine.capitalize()}Runner"
    )
    for name, value in GIVEN.get(engine, {}).items():
        assert value in composed.get_all_options().values(), name


def test_dataflow_composes_or_says_what_to_install() -> None:
    given = [f"runner.options.{name}={value}" for name, value in GIVEN["dataflow"].items()]
    try:
        runner, composed = runners.create(compose(["runner=dataflow", *given]).runner)
    except UsageError as error:
        assert "install apache-beam[gcp]" in str(error)
    else:
        assert (
            type(runner).__name__ == "DataflowRunner"
            and composed.get_all_options()["project"] == "p"
        )


@pytest.mark.parametrize("engine", GIVEN)
def test_a_required_option_is_named_with_the_command(engine: str) -> None:
    name = next(iter(GIVEN[engine]))
    with pytest.raises(
        UsageError,
        match=re.escape(
            f'runner.options.{name}: {engine} needs it; as in: make data DATA=coco ARGS="runner={engine}'
        ),
    ):
        runners.create(compose([f"runner={engine}"]).runner)


def test_an_option_that_beam_would_drop_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        UsageError,
        match="direct_num_worker: Beam has no such option; did you mean direct_num_workers",
    ):
        runners.create(compose(["runner=direct", "+runner.options.direct_num_worker=2"]).runner)


def test_an_unknown_engine_lists_those_there_are() -> None:
    with pytest.raises(
        UsageError,
        match="no engine 'prism'; there are: local, direct, dask, portable, flink, spark, dataflow",
    ):
        runners.create({"engine": "prism"})
