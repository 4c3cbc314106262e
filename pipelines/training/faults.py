"""What can stop a training beside a signal: a loss that is not finite, a disk. Each leaves a checkpoint to resume from."""

from collections.abc import Mapping

import numpy as np


class NotFinite(Exception):
    """A training loss became NaN or infinite; the weights are lost since the last good checkpoint."""


class NotSaved(Exception):
    """A checkpoint could not be saved; those before it are whole."""


def refuse_not_finite(losses: Mapping[str, float], steps: range, last_good: str | None) -> None:
    """Raises `NotFinite` naming the offending terms, the step or steps they arose in and the checkpoint before them."""
    offending = [f"{name}={value}" for name, value in losses.items() if not np.isfinite(value)]
    if offending:
        where = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
        raise NotFinite(
            f"{', '.join(offending)} in {where}; last good checkpoint: {last_good or 'none'}; "
            f"a lower learning rate (trainer.optimizer_config) or warm-up is the usual mend"
        )
