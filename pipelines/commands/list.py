"""Lists the experiments, datasets, runtimes, runners and sweeps, one line each.    make list

trellis list                                          what experiment=, dataset=, … accept
trellis list published                                published recipes, with figure, size and schedule
trellis list published task=detection sort=value      some of them, in order; format=csv or json
trellis list all                                      official experiments, with what was measured of each; status=works
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence

from pipelines import config
from pipelines.catalogue import official, published
from pipelines.usage import UsageError, nearest

TABLES = {"published": published.answer, "all": official.answer}
FOLDERS = ("published/", "catalogue/")  # They have tables of their own.


def main(overrides: Sequence[str]) -> int:
    """Prints every name that an override accepts, group by group, or one table."""
    table, *words = overrides or [""]
    lines = _of_table(table, words) if table else _of_all()
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # `| head` has seen enough; nothing is left to be written at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _of_table(table: str, words: Sequence[str]) -> Iterable[str]:
    if table not in TABLES:
        hint = nearest(table, list(TABLES))
        raise UsageError(f"list: there is no table {table!r}{hint}; without one: trellis list")
    return [TABLES[table](_pairs(words))]


def _of_all() -> Iterator[str]:
    for group in config.GROUPS:
        yield f"{group}="
        for name, headline in config.options(group).items():
            if not name.startswith(FOLDERS):
                yield f"  {name:<28} {headline}"
        if group == "experiment":
            recipes = len(published.names())
            experiments = len(official.load())
            yield f"  published/…: {recipes} recipes; make list ARGS=published"
            yield f"  catalogue/…: {experiments} official experiments; make list ARGS=all"


def _pairs(words: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise UsageError(f"list: {word!r} is no <column>=<value>, as in task=detection")
        pairs[key] = value
    return pairs
