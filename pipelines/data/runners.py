"""Where Beam runs. The runner is always named: Beam's default one looks for a binary on the network."""

from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner

from pipelines.config import UsageError


def create(runner: dict[str, Any]) -> tuple[PipelineRunner, PipelineOptions]:
    """The runner that `runner=` chose, with its options.

    Raises:
        UsageError: there is no such engine.
    """
    engine = runner.get("engine", "local")
    if engine not in ("local", "direct"):
        raise UsageError(f"runner.engine: no engine {engine!r}; there are: local, direct")
    return FnApiRunner(), PipelineOptions([])
