"""Prints the composed configuration.    make show EXP=retinanet

Nothing is built or checked against Model Garden: that is `make check`.
"""

from pipelines import config


def run(cfg: config.Config) -> int:
    """Prints `cfg` as YAML."""
    print(config.to_yaml(cfg), end="")
    return 0


main = config.composed(run)
