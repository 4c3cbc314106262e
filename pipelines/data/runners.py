"""Where Beam runs. The runner is always named: Beam's default one looks for a binary on the network."""

import os
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner, create_runner

from pipelines.config import UsageError

MANY = 4000  # examples from which starting processes pays
# Runner class by engine; `local` and `direct` are Beam's in-process one.
RUNNERS = {
    "local": None,
    "direct": None,
    "dask": "apache_beam.runners.dask.dask_runner.DaskRunner",
    "portable": "PortableRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
}
REQUIRED = {"portable": ("job_endpoint",), "dask": ("dask_client_address",), "dataflow": ("project", "region", "temp_location")}


def create(runner: dict[str, Any], *, examples: int = 0, shards: int = 1) -> tuple[PipelineRunner, PipelineOptions]:
    """The runner that `runner=` chose, with its options.

    Raises:
        UsageError: there is no such engine, an option is missing, or Beam does not know it.
    """
    engine, given = runner.get("engine", "local"), dict(runner.get("options") or {})
    if engine not in RUNNERS:
        raise UsageError(f"runner.engine: no engine {engine!r}; there are: {', '.join(RUNNERS)}")
    for name in REQUIRED.get(engine, ()):
        if not given.get(name):
            raise UsageError(f"runner.options.{name}: the {engine} runner needs it; as in: make data DATA=coco ARGS=\"runner={engine} runner.options.{name}=…\"")
    if engine == "local":
        processes = runner.get("processes") or (os.cpu_count() or 1 if examples >= MANY else 1)
        if processes > 1 and shards > 1:
            given = {"direct_num_workers": min(processes, shards), "direct_running_mode": "multi_processing", **given}
    options = PipelineOptions(flags(given))
    return (FnApiRunner() if RUNNERS[engine] is None else create_runner(RUNNERS[engine])), options


def flags(options: dict[str, Any]) -> list[str]:
    """Beam's command-line spelling of options."""
    spelled = []
    for name, value in options.items():
        if value is True:
            spelled.append(f"--{name}")
        elif isinstance(value, list):
            spelled += [f"--{name}={item}" for item in value]
        elif value is not None and value is not False:
            spelled.append(f"--{name}={value}")
    return spelled
