"""Lists the experiments, datasets, runtimes, runners and sweeps, one line each.    make list

trellis list                                          what experiment=, dataset=, … accept
trellis list published                                published recipes, with figure, size and schedule
trellis list published task=detection sort=value      some of them, in order; format=csv or json
trellis list all                                      official experiments, with what was measured of each; status=works
"""

from collections.abc import Sequence

from pipelines import config
from pipelines.catalogue import official, published
from pipelines.usage import UsageError, nearest

TABLES = {"published": published.answer, "all": official.answer}
FOLDERS = ("published/", "catalogue/")  # They have tables of their own.


def main(overrides: Sequence[str]) -> int:
    """Prints every name that an override accepts, group by group, or one table."""
    table, *words = overrides or [""]
    if table in TABLES:
        print(TABLES[table](_pairs(words)))
        return 0
    if table:
        hint = nearest(table, list(TABLES))
        raise UsageError(f"list: there is no table {table!r}{hint}; without one: trellis list")
    for group in config.GROUPS:
        print(f"{group}=")
        for name, headline in config.options(group).items():
            if not name.startswith(FOLDERS):
                print(f"  {name:<28} {headline}")
        if group == "experiment":
            print(f"  published/…: {len(published.names())} recipes; make list ARGS=published")
            print(f"  catalogue/…: {len(official.load())} official experiments; make list ARGS=all")
    return 0


def _pairs(words: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise UsageError(f"list: {word!r} is no <column>=<value>, as in task=detection")
        pairs[key] = value
    return pairs
