"""Sends MLflow what it has not been told yet about a run, or about all runs on disk.    make sync RUN=<run>

A run whose tracking server did not answer keeps everything in its run directory. With another
MLFLOW_TRACKING_URI the whole run goes to that server as a new one.
"""

from pathlib import Path

from pipelines import config
from pipelines.config import Config, absolute
from pipelines.outside import reason, redacted
from pipelines.tracking import mlflow_store, runs
from pipelines.tracking.record import read_run_id
from pipelines.usage import ExitCode, UsageError


def run(cfg: Config) -> int:
    """Returns 0 when MLflow has everything."""
    uri = mlflow_store.address(cfg)
    if cfg.run:
        record = runs.find(cfg.run, cfg)
        instead = "only there was anything kept that MLflow may not have"
        chosen = [runs.directory(record, cfg.run, instead)]
    else:
        chosen = [run_dir for run_dir in runs.local_runs(cfg) if runs.unsent(run_dir, uri)]
    if not chosen:
        print(f"nothing to send: {redacted(uri)} has every run in {absolute(cfg.runs_dir)}")
        return 0
    codes = [_send(run_dir, uri) for run_dir in chosen]
    return max(codes)


def _send(run_dir: Path, uri: str) -> int:
    from pipelines.tracking import delivery  # MLflow takes seconds to import.

    try:
        refused = delivery.deliver(run_dir, uri)
    except BlockingIOError:
        print(f"{run_dir}: still being recorded; its own process sends it")
        return ExitCode.FAILED
    except Exception as error:
        raise UsageError(
            f"{redacted(uri)} does not take it: {reason(error)}\n"
            f"nothing is lost; once it answers: make sync RUN={run_dir}"
        ) from None
    run_id = read_run_id(run_dir)
    print(f"{run_dir}: all sent, MLflow run {run_id} in {redacted(uri)}")
    for line in refused:
        print(f"  MLflow refused {line}")
    return ExitCode.FAILED if refused else ExitCode.DONE


main = config.composed(run)
