"""What one experiment goes through, in two processes: the first is killed, the second resumes, evaluates and exports.

The first trains undisturbed to its last step and is killed by SIGKILL before that step is saved: the second begins at the
checkpoint before it, and has to come to the very weights that the first had.
"""

import functools
import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines import assembly, config
from pipelines.config import Config
from pipelines.outside import reason
from pipelines.tracking import journal
from pipelines.training import process
from pipelines.usage import UsageError

STEPS = 3
SAVED = 2  # the last step before it that is saved
FORMATS = ("saved_model", "tflite")
WRITTEN = "ok"
REFUSED = "refused"  # begins an answer for users
FILE = "stages.jsonl"
WORDS = 300  # letters that an error is told in
# What makes a training small, whatever it is of.
SMALL = (
    "task.train_data.global_batch_size=2",
    "task.validation_data.global_batch_size=2",
    f"trainer.train_steps={STEPS}",
    f"trainer.validation_interval={STEPS}",
    "trainer.validation_steps=1",
    "trainer.steps_per_loop=1",
    "trainer.summary_interval=1",
    f"trainer.checkpoint_interval={SAVED}",
    "trainer.optimizer_config.warmup.linear.warmup_steps=1",
)


def composed(name: str, data: Sequence[str], run_dir: Path) -> Config:
    """The configuration that an experiment of the catalogue is tried with.

    Args:
        data: overrides that choose the data.
    """
    overrides = [f"experiment=catalogue/{name}", *data, *SMALL, f"run_dir={run_dir}"]
    return config.anchored(config.compose(overrides))


def first(cfg: Config) -> None:
    """Trains to the last step, notes its weights, and ends this process by SIGKILL."""
    from pipelines.training import loop  # TensorFlow.

    def killed(training: Any) -> None:
        note(cfg, "trained", weights=training._weights(), **progress)
        os.kill(os.getpid(), signal.SIGKILL)

    progress = _watched(loop.Training)
    loop.Training.evaluate = killed
    with _set_up(cfg) as (built, plan, outcome):
        note(cfg, "built", task=type(built.params.task).__name__)
        loop.train(plan, outcome)


def _watched(training: Any) -> dict[str, list]:
    """Has a training note the losses and the trained variables after each of its steps."""
    from pipelines.training import weights  # TensorFlow.

    progress: dict[str, list] = {"losses": [], "trainable": []}
    official = training.after_steps

    def after_steps(self: Any, output: Any) -> None:
        official(self, output)
        variables = self._official.model.trainable_variables
        progress["trainable"].append(weights.sha256(variables))
        losses = {name: float(value) for name, value in output.items() if name.endswith("loss")}
        progress["losses"].append(losses)

    training.after_steps = after_steps
    return progress


def second(cfg: Config, formats: Sequence[str] = FORMATS) -> None:
    """Resumes what `first` left, evaluates and exports; notes each stage as it ends."""
    from pipelines.training import loop  # TensorFlow.

    with _set_up(cfg) as (built, plan, outcome):
        resumed_from: list[int] = []
        trained: list[Any] = []
        resume = loop.Training._resume

        def noted(training: Any) -> None:
            resume(training)
            resumed_from.append(training._done)
            trained.append(training._official)

        loop.Training._resume = noted
        loop.train(plan, outcome)
        figures = outcome.metrics
        headline = built.params.trainer.best_checkpoint_eval_metric
        note(
            cfg, "resumed", step=resumed_from, weights=outcome.weights_sha256,
            figure=headline, value=figures.get(headline), figures=sorted(figures),
        )  # fmt: skip
        # What is exported is read into the model that is there: building another takes as long as the rest.
        official = type(trained[0].task)
        as_users_do = official.build_model
        official.build_model = functools.partialmethod(_at_hand, trained[0].model)
        if not _export(cfg, built, formats):
            # A reason is only one where the model was built anew, as `make export` does.
            official.build_model = as_users_do
            _export(cfg, built, formats)


def refusals(cfg: Config) -> None:
    """Notes what an export says of a model that nobody has trained: whether it is one to be exported at all."""
    with _set_up(cfg) as (built, _, _):
        _export(cfg, built, FORMATS)


def _at_hand(task: Any, model: Any) -> Any:
    task._model = model  # YOLO's tasks ask for it.
    return model


def _export(cfg: Config, built: Any, formats: Sequence[str]) -> bool:
    """Writes the formats and notes what came of each; whether all are whole, or the model is none to be exported."""
    from pipelines.shipping import conversion  # TensorFlow.

    run_dir = Path(cfg.run_dir)
    (run_dir / "config.yaml").write_text(config.to_yaml(built.cfg))
    (run_dir / "manifest.json").write_text(built.data.to_json())
    journal.repair(run_dir)  # Makes its folder.
    journal.append(run_dir, "open", experiment=cfg.name)
    of_run = replace(built.cfg, run=cfg.run_dir)
    try:
        assembly.recorded_of_pictures(of_run)
        shipped = assembly.shipped(of_run, 0)
    except Exception as error:  # Whatever it is, it is why there is no export.
        why = _why(error).replace(cfg.run_dir, "<run>")
        note(cfg, "exported", **dict.fromkeys(formats, why))
        return isinstance(error, UsageError)
    answers = {}
    for form in formats:
        try:
            written = conversion.write(shipped.source, form, run_dir / "exports" / form)
            answers[form] = WRITTEN if conversion.size(written) else "empty"
        except Exception as error:
            answers[form] = _why(error)
        note(cfg, "exported", **answers)
    return all(answer == WRITTEN for answer in answers.values())


def _why(error: Exception) -> str:
    """An error in words, without the folders of this machine."""
    word = REFUSED if isinstance(error, UsageError) else type(error).__name__
    words = f"{word}: {reason(error, 5000)}"
    return without_folders(words)[:WORDS]


def without_folders(words: str) -> str:
    """Paths from the package on that they lie in."""
    return re.sub(r"(?:/[^\s\"'/]+)+/(?:site-packages/|(?=(?:pipelines|tests|tasks)/))", "", words)


@contextmanager
def _set_up(cfg: Config) -> Iterator[tuple[Any, Any, Any]]:
    """What `train` sets up, without what tells MLflow."""
    run_dir = Path(cfg.run_dir)
    with process.prepared(cfg, run_dir):
        from pipelines.training import loop, workers  # TensorFlow.

        try:
            built = assembly.built(assembly.prepared(cfg))
            outcome = loop.Outcome()
            with workers.interruption(built.devices) as signals:
                plan = loop.Plan(
                    built.params, run_dir, built.devices, exact=cfg.determinism, record_flight=cfg.flight,
                    report=lambda step, values: None, signals=signals,
                )  # fmt: skip
                yield built, plan, outcome
        except Exception as error:
            note(cfg, "failed", why=_why(error))
            raise


def note(cfg: Config, stage: str, **facts: Any) -> None:
    """Adds what a stage has shown to the run's folder."""
    with (Path(cfg.run_dir) / FILE).open("a") as file:
        file.write(json.dumps({"stage": stage, **facts}) + "\n")
