"""Builds the records of one data set, unless they are there.    make data DATA=digit_scenes"""

import tasks
from pipelines.config import Config
from pipelines.data import store
from pipelines.usage import UsageError


def run(cfg: Config) -> int:
    """Finds or builds the data that `dataset=` or the experiment names."""
    if cfg.dataset is None:
        raise UsageError("no dataset; choose one with dataset=<name>, see: trellis list")
    store.obtain(cfg, tasks.load(cfg.dataset.task))
    return 0
