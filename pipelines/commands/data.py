"""Builds the records of one data set, unless they are there.    make data DATA=digit_scenes"""

from pipelines import assembly, config
from pipelines.config import Config


def run(cfg: Config) -> int:
    """Finds or builds the data that `dataset=` or the experiment names."""
    assembly.with_data(cfg)
    return 0


main = config.composed(run)
