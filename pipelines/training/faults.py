"""What can stop a training beside a signal: a loss that is not finite, a disk. Each leaves a checkpoint to resume from."""

from collections.abc import Mapping

import numpy as np


class NotFinite(Exception):
    """A training loss became NaN or infinite; the weights are lost since the last good checkpoint."""


class NotSaved(Exception):
    """A checkpoint could not be saved; those before it are whole."""


def refuse_not_finite(values: Mapping[str, float], steps: range, last_good: str | None) -> None:
    """Raises `NotFinite` naming the losses that are not finite, the step or steps they arose in and the checkpoint before them."""
    offending = []
    for name, value in values.items():
        if "loss" in name and not np.isfinite(value):
            offending.append(f"{name}={value}")
    if not offending:
        return
    where = f"step {steps[0]}"
    if len(steps) > 1:
        where = f"steps {steps[0]} to {steps[-1]}"
    raise NotFinite(
        f"{', '.join(offending)} in {where}; last good checkpoint: {last_good or 'none'}; "
        f"a lower learning rate (trainer.optimizer_config) or warm-up is the usual cure"
    )
