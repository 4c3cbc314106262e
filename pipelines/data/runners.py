"""Where Beam runs. The runner is always named: Beam's default one looks for a binary on the network."""

import argparse
import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner, create_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipelines.data import silenced
from pipelines.system.processes import cores
from pipelines.usage import UsageError, nearest

MANY = 10_000  # examples from which starting processes pays
# Beam's runner by engine; `local` and `direct` are its in-process one.
RUNNERS = {
    "local": None,
    "direct": None,
    "dask": "apache_beam.runners.dask.dask_runner.DaskRunner",
    "portable": "apache_beam.runners.portability.portable_runner.PortableRunner",
    "flink": "apache_beam.runners.portability.flink_runner.FlinkRunner",
    "spark": "apache_beam.runners.portability.spark_runner.SparkRunner",
    "dataflow": "apache_beam.runners.dataflow.dataflow_runner.DataflowRunner",
}
REQUIRED = {
    "portable": ("job_endpoint",),
    "dask": ("dask_client_address",),
    "flink": ("flink_master",),
    "spark": ("spark_master_url",),
    "dataflow": ("project", "region", "temp_location"),
}
EXTRAS = {"dask": "dask", "dataflow": "gcp"}  # extras of the package apache-beam


# Beam's own worker, which prints a page about itself before it looks at any log level.
WORKER = f"""{shlex.quote(sys.executable)} -c '
import logging, sys
from pipelines.data import without_tables
logging.disable(logging.WARNING)
with without_tables():
    from apache_beam.runners.worker.sdk_worker_main import main
main(sys.argv)'"""


@contextmanager
def pipeline(
    runner: dict[str, Any], *, examples: int = 0, shards: int = 1
) -> Iterator[beam.Pipeline]:
    """A pipeline on the runner that `runner=` chose; it has run when the block ends.

    Args:
        examples: how many there are, roughly; few are not worth several processes.
        shards: how many workers can have something to do.
    """
    engine, options = create(runner, examples=examples, shards=shards)
    # Beam logs what it raises as well, once for each worker and layer.
    with silenced(logging.ERROR), beam.Pipeline(runner=engine, options=options) as started:
        yield started


def create(
    runner: dict[str, Any], *, examples: int = 0, shards: int = 1
) -> tuple[PipelineRunner, PipelineOptions]:
    """The runner that `runner=` chose, with its options.

    Raises:
        UsageError: there is no such engine, it is not installed, an option is missing, or Beam does not know it.
    """
    engine, given = (
        runner.get("engine", "local"),
        {name: value for name, value in (runner.get("options") or {}).items() if value is not None},
    )
    if engine not in RUNNERS:
        raise UsageError(f"runner.engine: no engine {engine!r}; there are: {', '.join(RUNNERS)}")
    for name in REQUIRED.get(engine, ()):
        if name not in given:
            raise UsageError(
                f'runner.options.{name}: {engine} needs it; as in: make data DATA=coco ARGS="runner={engine} runner.options.{name}=…"'
            )
    if engine == "local":
        processes = runner.get("processes") or (cores() if examples >= MANY else 1)
        if processes > 1 and shards > 1:
            given = {"direct_num_workers": min(processes, shards), **given}
    created = _created(engine, processes="direct_num_workers" in given)
    _refuse_unknown(given)
    return created, PipelineOptions(flags(given))


def _created(engine: str, *, processes: bool) -> PipelineRunner:
    name = RUNNERS[engine]
    try:
        if name is None:
            return FnApiRunner(
                SubprocessSDKEnvironment.from_command_string(WORKER) if processes else None
            )
        return create_runner(name)
    except (ImportError, AttributeError) as error:
        extra = EXTRAS.get(engine, engine)
        raise UsageError(
            f"runner {engine} is not installed ({error}); install apache-beam[{extra}]"
        ) from None


def _refuse_unknown(options: dict[str, Any]) -> None:
    """Refuses an option that Beam does not know and would silently drop."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for owner in PipelineOptions.__subclasses__():
        owner._add_argparse_args(parser)  # type: ignore[arg-type]
    known = {action.dest for action in parser._actions} | {
        string.lstrip("-") for action in parser._actions for string in action.option_strings
    }
    for name in options:
        if name not in known:
            raise UsageError(
                f"runner.options.{name}: Beam has no such option{nearest(name, sorted(known))}"
            )


def flags(options: dict[str, Any]) -> list[str]:
    """Beam's command-line spelling of options."""
    spelled = []
    for name, value in options.items():
        if value is True:
            spelled.append(f"--{name}")
        elif isinstance(value, list):
            spelled += [f"--{name}={item}" for item in value]
        elif value is not False:
            spelled.append(f"--{name}={value}")
    return spelled
