"""The checkpoints of one run: the last ones in `checkpoints/`, the best in `checkpoints/best`; damaged ones are set aside."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from official.core import train_utils

from pipelines.system import durable
from pipelines.training.faults import NotSaved
from pipelines.usage import UsageError

INFO = "info.json"  # beside the best checkpoint: its step and figures
STEP = (
    "global_step/.ATTRIBUTES/VARIABLE_VALUE"  # the step that a checkpoint was saved at, inside it
)


class BestExporter(train_utils.BestCheckpointExporter):
    """The official exporter, which may be stopped at any moment: weights first, then their figure, then the older weights go.

    The official one writes the figure first; stopped before the weights are saved, it takes them for saved ever after.
    """

    _suffix = ""

    @property
    def best_ckpt_logs_path(self) -> str:
        """Where the official exporter writes the figure to."""
        return super().best_ckpt_logs_path + self._suffix

    def maybe_export_checkpoint(
        self,
        checkpoint: tf.train.Checkpoint,
        eval_logs: Mapping[str, Any],
        global_step: int,
        write_logs: bool = True,
    ) -> bool:
        """Saves the weights if `eval_logs` are better than the best so far."""
        if self._best_ckpt_logs is not None and not self._new_metric_is_better(
            self._best_ckpt_logs, eval_logs
        ):
            return False
        folder = Path(self._export_dir)
        with _saving(folder, lambda: next(iter(_prefixes(folder)), None)):
            prefix = checkpoint.write(
                str(folder / f"{train_utils.BEST_CHECKPOINT_NAME}-{int(global_step)}")
            )
            self._replace_info(eval_logs, global_step)
            _keep_only(folder, prefix)
        self._best_ckpt_logs = eval_logs
        return True

    def _replace_info(self, eval_logs: Mapping[str, Any], global_step: int) -> None:
        self._suffix = ".tmp"
        try:
            self.export_best_eval_metric(eval_logs, global_step)
            written = self.best_ckpt_logs_path
        finally:
            self._suffix = ""
        os.replace(written, self.best_ckpt_logs_path)


def best_exporter(trainer: Any, folder: Path) -> BestExporter:
    """What keeps the best checkpoint of a run in its `checkpoints/`, by the node `trainer`."""
    chosen = (
        trainer.best_checkpoint_export_subdir,
        trainer.best_checkpoint_eval_metric,
        trainer.best_checkpoint_metric_comp,
    )
    return BestExporter(str(folder / chosen[0]), *chosen[1:])


def best(folder: Path, say: Callable[[str], None]) -> str:
    """Prefix of the best checkpoint in a run's `checkpoints/`, of the newest where no evaluation has chosen one.

    Args:
        say: told where it is not the best one.

    Raises:
        UsageError: there is none.
    """
    chosen = folder / "best"
    others = [*_prefixes(folder), *_prefixes(folder / "last")]
    step, saved = _best_step(chosen), _best_prefix(chosen)
    if saved and stored_step(saved) == step:
        return saved
    if step is not None:
        # Saved before the evaluation that found it best: the same weights.
        if same := next((prefix for prefix in others if stored_step(prefix) == step), None):
            say(
                f"the best checkpoint, of step {step}, is not in {chosen}; taking {same}, which was saved at the same step"
            )
            return same
        say(f"the best checkpoint, of step {step}, is lost")
    if not (instead := saved or next(iter(others), None)):
        raise UsageError(f"{folder}: no checkpoint here; the run saved none")
    if not saved or step is not None:
        say(
            f"taking {instead}, of step {stored_step(instead)}, which no evaluation has found to be the best"
        )
    return instead


def is_best(prefix: str) -> bool:
    """Whether a checkpoint was saved as the best: in the midst of an evaluation, averaged weights being in the model."""
    return Path(prefix).name.startswith(train_utils.BEST_CHECKPOINT_NAME)


def places(folder: Path, last: str | None) -> dict[str, tuple[str, int]]:
    """Path and step of the checkpoints `best` and `last`, as far as there are any."""
    saved = {}
    if last:
        saved["last"] = (last, _number(last))
    chosen = _best_prefix(folder / "best")
    step = stored_step(chosen) if chosen else None
    if step is not None:
        saved["best"] = (str(folder / "best"), step)
    return saved


def mend(folder: Path, say: Callable[[str], None]) -> None:
    """Sets aside what a crash or a disk has left damaged, so that a run goes on from the newest checkpoint that is whole.

    Args:
        say: told of each damaged checkpoint, and where training goes on.
    """
    _mend_best(folder / "best", say)
    before, state = _prefixes(folder), folder / "checkpoint"
    damaged = _set_aside(folder, before, say)
    if not (whole := before[damaged:]):
        if before or state.exists():
            say("no whole checkpoint is left; starting from the first step")
            state.unlink(missing_ok=True)
        return
    named = _named(folder)
    if named == Path(whole[0]).name:
        return
    reason = "" if damaged else f"{state} names {named or 'no checkpoint'}; "
    say(f"{reason}going on from {whole[0]}")
    _write_state(folder, whole)


def _mend_best(folder: Path, say: Callable[[str], None]) -> None:
    """Leaves one best checkpoint with its figure; a figure whose checkpoint is lost goes, so that the next evaluation counts."""
    _set_aside(folder, _prefixes(folder), say)
    step, saved = _best_step(folder), _best_prefix(folder)
    if step is not None and saved and stored_step(saved) == step:
        _keep_only(folder, saved)
        return
    if step is not None:
        say(
            f"the best checkpoint, of step {step}, is lost; the next evaluation is held against none"
        )
    (folder / INFO).unlink(missing_ok=True)


def _set_aside(folder: Path, prefixes: list[str], say: Callable[[str], None]) -> int:
    """Renames damaged checkpoints, up to the first that is whole; returns how many."""
    for count, prefix in enumerate(prefixes):
        if (trouble := _trouble(prefix)) is None:
            return count
        say(f"checkpoint {prefix} is damaged ({trouble})")
        for file in folder.glob(f"{Path(prefix).name}.*"):
            file.rename(file.with_name(f"damaged-{file.name}"))
    return len(prefixes)


def guard(manager: tf.train.CheckpointManager) -> None:
    """Makes a failed save say what happened, and which checkpoint is whole.

    Raises (later, from `manager.save`):
        NotSaved: the disk is full, or may not be written.
    """
    official = manager.save

    def save(*args: Any, **kwargs: Any) -> Any:
        with _saving(manager.directory, lambda: manager.latest_checkpoint):
            return official(*args, **kwargs)

    manager.save = save


@contextlib.contextmanager
def _saving(folder: str | Path, whole: Callable[[], str | None]) -> Iterator[None]:
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        reason = " ".join(str(getattr(error, "message", error)).split())[:200]
        raise NotSaved(
            f"a checkpoint could not be saved in {folder} ({reason}); the last whole one: {whole() or 'none'}"
        ) from error


def stored_step(prefix: str) -> int | None:
    """The step that a checkpoint was saved at, None where it cannot be read."""
    try:
        return int(tf.train.load_checkpoint(prefix).get_tensor(STEP))
    except (
        Exception
    ):  # The reader has a dozen ways to say that bytes are wrong, or that it knows no such tensor.
        return None


def _best_step(folder: Path) -> int | None:
    """The step whose figure is the best, None where none is known."""
    try:
        return int(json.loads((folder / INFO).read_text())["best_ckpt_global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _best_prefix(folder: Path) -> str | None:
    """The checkpoint in `best/` that the figure there belongs to, else the latest: each was better than those before it."""
    saved = sorted(_prefixes(folder), key=lambda prefix: stored_step(prefix) or 0, reverse=True)
    step = _best_step(folder)
    return next(
        (prefix for prefix in saved if stored_step(prefix) == step), next(iter(saved), None)
    )


def _keep_only(folder: Path, kept: str) -> None:
    """Names `kept` the checkpoint of a folder and removes the others."""
    _write_state(folder, [kept])
    for prefix in _prefixes(folder):
        if Path(prefix).name != Path(kept).name:
            for file in folder.glob(f"{Path(prefix).name}.*"):
                file.unlink()


def _write_state(folder: Path, prefixes: list[str]) -> None:
    """Writes TensorFlow's list of a folder's checkpoints, given the newest first; by name, so that a folder may be moved."""
    names = [Path(prefix).name for prefix in prefixes]
    lines = [f'model_checkpoint_path: "{names[0]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in reversed(names)]
    durable.write_whole(folder / "checkpoint", "\n".join(lines) + "\n")


def _named(folder: Path) -> str | None:
    """Name of the checkpoint that TensorFlow would go on from."""
    try:
        latest = tf.train.latest_checkpoint(str(folder))
    except ValueError:  # of an empty file
        return None
    return Path(latest).name if latest else None


def _prefixes(folder: Path) -> list[str]:
    """Checkpoints in a folder, the newest first."""
    saved = [
        str(file.with_suffix(""))
        for file in folder.glob("*.index")
        if not file.name.startswith("damaged-")
    ]
    return sorted(
        (prefix for prefix in saved if re.search(r"-\d+$", prefix)), key=_number, reverse=True
    )


def _number(prefix: str) -> int:
    return int(prefix.rpartition("-")[2])


def _trouble(prefix: str) -> str | None:
    """What is wrong with a checkpoint: every tensor is read, its checksum with it."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (
        Exception
    ) as error:  # Whatever the reader makes of it: it has a dozen ways to say that bytes are wrong.
        return " ".join(str(error).split())[:120]
    return None
