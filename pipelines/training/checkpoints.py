"""The checkpoints of one run: the last ones in `checkpoints/`, the best in `checkpoints/best`; damaged ones are set aside."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipelines.training.faults import NotSaved
from pipelines.usage import UsageError


def best(folder: Path) -> str:
    """Prefix of the best checkpoint in a run's `checkpoints/`, of the newest where no evaluation has chosen one.

    Raises:
        UsageError: there is none.
    """
    for place in (folder / "best", folder, folder / "last"):
        if found := tf.train.latest_checkpoint(str(place)) or next(iter(_prefixes(place)), None):
            return found
    raise UsageError(f"{folder}: no checkpoint here; the run saved none")


def places(folder: Path, last: str | None) -> dict[str, tuple[str, int]]:
    """Path and step of the checkpoints `best` and `last`, as far as there are any."""
    found = {}
    if last:
        found["last"] = (last, _step(last))
    if info := _read(folder / "best" / "info.json"):
        found["best"] = (str(folder / "best"), int(info["best_ckpt_global_step"]))
    return found


def mend(folder: Path, say: Callable[[str], None]) -> None:
    """Sets aside what a crash or a disk has left damaged, so that a run goes on from the newest checkpoint that is whole.

    Args:
        say: told of each damaged checkpoint, and where training goes on.
    """
    info = folder / "best" / "info.json"
    if info.exists() and _read(info) is None:
        info.unlink()  # The evaluation that was writing it is made again.
    prefixes, damaged = _prefixes(folder), 0
    while damaged < len(prefixes) and (trouble := _trouble(prefixes[damaged])):
        say(f"checkpoint {prefixes[damaged]} is damaged ({trouble})")
        for file in folder.glob(f"{Path(prefixes[damaged]).name}.*"):
            file.rename(file.with_name(f"damaged-{file.name}"))
        damaged += 1
    if damaged:
        whole = prefixes[damaged:]
        say(f"going on from {whole[0]}" if whole else "no whole checkpoint is left; starting from the first step")
        (folder / "checkpoint").unlink(missing_ok=True)
        if whole:
            tf.compat.v1.train.update_checkpoint_state(str(folder), whole[0], all_model_checkpoint_paths=whole[::-1])


def guard(manager: tf.train.CheckpointManager) -> None:
    """Makes a failed save say what happened, and which checkpoint is whole.

    Raises (later, from `manager.save`):
        NotSaved: the disk is full, or may not be written.
    """
    official = manager.save

    def save(*args: Any, **kwargs: Any) -> Any:
        try:
            return official(*args, **kwargs)
        except (tf.errors.OpError, OSError) as error:
            reason = " ".join(str(getattr(error, "message", error)).split())[:200]
            kept = manager.latest_checkpoint or "none"
            raise NotSaved(f"a checkpoint could not be saved in {manager.directory} ({reason}); the last whole one: {kept}") from error

    manager.save = save


def _prefixes(folder: Path) -> list[str]:
    """Checkpoints in a folder, the newest first."""
    found = [str(file.with_suffix("")) for file in folder.glob("*.index") if not file.name.startswith("damaged-")]
    return sorted(found, key=_step, reverse=True)


def _step(prefix: str) -> int:
    return int(prefix.rpartition("-")[2])


def _trouble(prefix: str) -> str | None:
    """What is wrong with a checkpoint: every tensor is read, its checksum with it."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except Exception as error:  # Whatever the reader makes of it: it has a dozen ways to say that bytes are wrong.
        return " ".join(str(error).split())[:120]
    return None


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text())
    except (OSError, json.JSONDecodeError):
        return None
