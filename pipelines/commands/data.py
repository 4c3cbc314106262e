"""Builds the records of one data set, unless they are there.    make data DATA=digit_scenes"""

import tasks
from pipelines import config
from pipelines.config import Config
from pipelines.data import store


def run(cfg: Config) -> int:
    """Finds or builds the data that `dataset=` or the experiment names."""
    dataset = config.given_dataset(cfg)
    store.obtain(cfg, tasks.load(dataset.task))
    return 0


main = config.composed(run)
