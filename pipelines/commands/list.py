"""Lists the experiments, datasets, runtimes, runners and sweeps, one line each.    make list"""

from pipelines import config


def run(cfg: config.Config) -> int:
    """Prints every name that an override accepts, group by group."""
    for group in config.GROUPS:
        print(f"{group}=")
        for name, headline in config.options(group).items():
            print(f"  {name:<28} {headline}")
    return 0


main = config.composed(run)
