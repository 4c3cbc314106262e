"""The checkpoints of one run: the last ones in `checkpoints/`, the best in `checkpoints/best`; damaged ones are set aside."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from official.core import train_utils

from pipelines.training import upstream
from pipelines.training.faults import NotSaved
from pipelines.usage import UsageError

DAMAGED = "damaged-"  # begins the name of what was set aside

Say = Callable[[str], None]


class BestExporter(upstream.BestExporter):
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
        if not self.is_best(eval_logs):
            return False
        name = f"{train_utils.BEST_CHECKPOINT_NAME}-{int(global_step)}"
        with _saving(self.folder, lambda: next(iter(_prefixes(self.folder)), None)):
            prefix = checkpoint.write(str(self.folder / name))
            self._replace_info(eval_logs, global_step)
            _keep_only(self.folder, prefix)
        self.set_best(eval_logs)
        return True

    def _replace_info(self, eval_logs: Mapping[str, Any], global_step: int) -> None:
        self._suffix = ".tmp"
        try:
            self.export_best_eval_metric(eval_logs, global_step)
            written = Path(self.best_ckpt_logs_path)
        finally:
            self._suffix = ""
        written.replace(self.best_ckpt_logs_path)


def best_exporter(trainer: Any, folder: Path) -> BestExporter:
    """What keeps the best checkpoint of a run in its `checkpoints/`, by the node `trainer`."""
    return BestExporter(
        str(folder / trainer.best_checkpoint_export_subdir),
        trainer.best_checkpoint_eval_metric,
        trainer.best_checkpoint_metric_comp,
    )


def best(folder: Path, say: Say) -> str:
    """Prefix of the best checkpoint in a run's `checkpoints/`, of the newest where no evaluation has chosen one.

    Args:
        say: told where it is not the best one.

    Raises:
        UsageError: there is none.
    """
    chosen = folder / "best"
    step = best_step(chosen)
    saved = _best_prefix(chosen)
    if saved and stored_step(saved) == step:
        return saved
    prefixes = [*_prefixes(folder), *_prefixes(folder / "last")]
    if step is not None:
        for prefix in prefixes:
            # Saved before the evaluation that found it best: the same weights.
            if stored_step(prefix) == step:
                say(
                    f"the best checkpoint, of step {step}, is not in {chosen}; taking {prefix}, "
                    f"which was saved at the same step"
                )
                return prefix
        say(f"the best checkpoint, of step {step}, is lost")
    instead = saved or next(iter(prefixes), None)
    if instead is None:
        raise UsageError(f"{folder}: no checkpoint here; the run saved none")
    if not saved or step is not None:
        say(
            f"taking {instead}, of step {stored_step(instead)}, which no evaluation has found to be the best"
        )
    return instead


def chosen(folder: Path, name: str, say: Say) -> str:
    """Prefix of the checkpoint in a run's `checkpoints/` that a user names.

    Args:
        name: `best`, `last` or a step.
        say: as for `best`.

    Raises:
        UsageError: there is none of this name; the message says of which steps there are some.
    """
    if name == "best":
        return best(folder, say)
    by_step: dict[int | None, str] = {}
    for place in (folder / "best", folder / "last", folder):
        for prefix in _prefixes(place):
            by_step[stored_step(prefix)] = prefix
    by_step.pop(None, None)
    there = sorted(step for step in by_step if step is not None)
    step = int(name) if name.isdecimal() else None
    if name == "last" and there:
        step = there[-1]
    if step in by_step:
        return by_step[step]
    listed = ", ".join(map(str, there)) or "none"
    raise UsageError(
        f"step: {folder} has no checkpoint {name!r}; say best, last or the step of one: {listed}"
    )


def is_best(prefix: str) -> bool:
    """Whether a checkpoint was saved as the best: in the midst of an evaluation, averaged weights being in the model."""
    return Path(prefix).name.startswith(train_utils.BEST_CHECKPOINT_NAME)


def saved(folder: Path, last: str | None) -> dict[str, tuple[str, int]]:
    """Path and step of the checkpoints `best` and `last`, as far as there are any."""
    steps = {}
    if last:
        steps["last"] = (last, _number(last))
    chosen = _best_prefix(folder / "best")
    step = stored_step(chosen) if chosen else None
    if step is not None:
        steps["best"] = (str(folder / "best"), step)
    return steps


def repair(folder: Path, say: Say) -> None:
    """Sets aside what a crash or a disk has left damaged, so that a run resumes from the newest checkpoint that is whole.

    Args:
        say: told of each damaged checkpoint, and where training resumes.
    """
    _repair_best(folder / "best", say)
    state = folder / upstream.STATE_FILE
    before = _prefixes(folder)
    damaged = _set_aside(folder, before, say)
    whole = before[damaged:]
    if not whole:
        if before or state.exists():
            say("no whole checkpoint is left; starting from the first step")
            state.unlink(missing_ok=True)
        return
    named = _named(folder)
    if named == Path(whole[0]).name:
        return
    reason = "" if damaged else f"{state} names {named or 'no checkpoint'}; "
    say(f"{reason}resuming from {whole[0]}")
    upstream.write_state(folder, whole)


def _repair_best(folder: Path, say: Say) -> None:
    """Leaves one best checkpoint with its figure; a figure whose checkpoint is lost goes, so that the next evaluation counts."""
    _set_aside(folder, _prefixes(folder), say)
    step = best_step(folder)
    prefix = _best_prefix(folder)
    if step is not None and prefix and stored_step(prefix) == step:
        _keep_only(folder, prefix)
        return
    if step is not None:
        say(
            f"the best checkpoint, of step {step}, is lost; the next evaluation is held against none"
        )
    (folder / upstream.BEST_INFO).unlink(missing_ok=True)


def _set_aside(folder: Path, prefixes: list[str], say: Say) -> int:
    """Renames damaged checkpoints, up to the first that is whole; returns how many."""
    for count, prefix in enumerate(prefixes):
        trouble = _trouble(prefix)
        if trouble is None:
            return count
        say(f"checkpoint {prefix} is damaged ({trouble})")
        for file in folder.glob(f"{Path(prefix).name}.*"):
            file.rename(file.with_name(DAMAGED + file.name))
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
        message = str(getattr(error, "message", error))
        reason = " ".join(message.split())[:200]
        raise NotSaved(
            f"a checkpoint could not be saved in {folder} ({reason}); the last whole one: {whole() or 'none'}"
        ) from error


def stored_step(prefix: str) -> int | None:
    """The step that a checkpoint was saved at, None where it cannot be read."""
    try:
        return int(tf.train.load_checkpoint(prefix).get_tensor(upstream.SAVED_STEP))
    # The reader has a dozen ways to say that bytes are wrong, or that it knows no such tensor.
    except Exception:
        return None


def best_step(folder: Path) -> int | None:
    """The step whose figure is the best, None where none is noted."""
    try:
        info = json.loads((folder / upstream.BEST_INFO).read_text())
        return int(info[upstream.BEST_STEP])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _best_prefix(folder: Path) -> str | None:
    """The checkpoint in `best/` that the figure there belongs to, else the latest: each was better than those before it."""
    prefixes = _prefixes(folder)
    steps = {prefix: stored_step(prefix) for prefix in prefixes}
    prefixes.sort(key=lambda prefix: steps[prefix] or 0, reverse=True)
    step = best_step(folder)
    for prefix in prefixes:
        if steps[prefix] == step:
            return prefix
    return prefixes[0] if prefixes else None


def _keep_only(folder: Path, kept: str) -> None:
    """Names `kept` the checkpoint of a folder and removes the others."""
    upstream.write_state(folder, [kept])
    for prefix in _prefixes(folder):
        if Path(prefix).name != Path(kept).name:
            for file in folder.glob(f"{Path(prefix).name}.*"):
                file.unlink()


def _named(folder: Path) -> str | None:
    """Name of the checkpoint that TensorFlow would resume from."""
    try:
        latest = tf.train.latest_checkpoint(str(folder))
    except ValueError:  # An empty file.
        return None
    return Path(latest).name if latest else None


def _prefixes(folder: Path) -> list[str]:
    """Checkpoints in a folder, the newest first."""
    prefixes = []
    for file in folder.glob("*.index"):
        prefix = str(file.with_suffix(""))
        if re.search(r"-\d+$", prefix) and not file.name.startswith(DAMAGED):
            prefixes.append(prefix)
    return sorted(prefixes, key=_number, reverse=True)


def _number(prefix: str) -> int:
    return int(prefix.rpartition("-")[2])


def _trouble(prefix: str) -> str | None:
    """What is wrong with a checkpoint: every tensor is read, its checksum with it."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    # Whatever the reader makes of it: it has a dozen ways to say that bytes are wrong.
    except Exception as error:
        return " ".join(str(error).split())[:120]
    return None
