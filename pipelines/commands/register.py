"""Puts a run's model into MLflow's registry as `champion`.    make register RUN=<run> ARGS=name=<model>

The champion before it becomes `previous`; ARGS="name=<model> rollback=true" gives it the title back.
"""

from pathlib import Path

from pipelines import assembly, config
from pipelines.config import Config
from pipelines.tracking import mlflow_store
from pipelines.usage import ExitCode, UsageError

UNNAMED = "none"  # `name` where nobody has given one


def run(cfg: Config) -> int:
    """Adds a version, or rolls back."""
    if cfg.name == UNNAMED:
        raise UsageError("name: under which name? make register RUN=<run> ARGS=name=<model>")
    from pipelines.tracking.registry import Registry  # MLflow takes seconds to import.

    registry = Registry(mlflow_store.address(cfg))
    if cfg.rollback:
        version, before = registry.roll_back(cfg.name)
        print(f"{cfg.name}: version {version} is champion again, in place of version {before}")
        return ExitCode.DONE
    record, configuration = assembly.recorded_of_pictures(cfg)
    run_dir = record.run_dir or Path(config.absolute(configuration.run_dir))
    if record.run_id is None:
        raise UsageError(f"run: MLflow does not know {cfg.run} yet; make sync RUN={cfg.run}")
    exports = run_dir / "exports"
    folder = assembly.servable(exports, lambda: _refuse(cfg))
    card = (exports / "card.md").read_text()
    version = registry.add(cfg.name, record.run_id, folder, card)
    print(f"{cfg.name}: version {version} is champion; make ui shows its ship card")
    return ExitCode.DONE


def _refuse(cfg: Config) -> None:
    raise UsageError(
        f"run: it is not exported, so nothing says what it gives and costs; "
        f"first: make export RUN={cfg.run} FORMAT=saved_model"
    )


main = config.composed(run)
