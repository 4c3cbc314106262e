"""Answers requests with pictures on this machine.    make serve RUN=<run>    make serve RUN=<run> ARGS=port=5001

MLflow serves the run's exported SavedModel, which is exported first where it is not there.
"""

import os
import subprocess
import sys
from pathlib import Path

from pipelines import assembly, config
from pipelines.config import Config
from pipelines.system import ports, processes
from pipelines.usage import UsageError

# Through a pipe: a photograph is longer than an argument of a command may be.
BODY = (
    """(printf '{"dataframe_records": [{"image": "'; base64 < picture.jpg | tr -d '\\n'; """
    """printf '"}]}')"""
)


def run(cfg: Config) -> int:
    """Serves until Ctrl-C."""
    port = ports.port(cfg.port, f"make serve RUN={cfg.run} ARGS=")
    folder = served(cfg)
    url = f"http://{ports.HOST}:{port}/invocations"
    print(f"{url}    stop: Ctrl-C")
    print(f"{BODY} | curl -s {url} -H 'Content-Type: application/json' -d @-", flush=True)
    command, environment = processes.this_tool(
        *f"models serve --env-manager local --host {ports.HOST} --port {port}".split(),
        "--model-uri",
        str(folder),
        module="mlflow",
    )
    # MLflow looks for its server, uvicorn, where the shell would.
    beside = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([beside, environment.get("PATH", os.defpath)])
    return processes.serve(command, environment)


def served(cfg: Config) -> Path:
    """The folder of the run's model in MLflow's own format, made where it is not there.

    Raises:
        UsageError: the run cannot be exported.
    """
    record, configuration = assembly.recorded_of_pictures(cfg)
    run_dir = record.run_dir or Path(config.absolute(configuration.run_dir))
    return assembly.servable(run_dir / "exports", lambda: _export(cfg))


def _export(cfg: Config) -> None:
    overrides = [
        f"run={cfg.run}",
        f"data_dir={cfg.data_dir}",
        f"runs_dir={cfg.runs_dir}",
    ]
    command, environment = processes.this_tool("export", "formats=[saved_model]", *overrides)
    code = subprocess.run(command, env=environment).returncode
    if code:
        raise UsageError(
            f"run: {cfg.run} was not exported; see: make export RUN={cfg.run} FORMAT=saved_model"
        )


main = config.composed(run)
