"""Records from what users have, by Apache Beam."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TABLES = ("pandas", "pyarrow")


@contextmanager
def silenced(level: int) -> Iterator[None]:
    """Inside, no logger of the process says anything of this level or below; afterwards all is as it was."""
    before = logging.root.manager.disable
    logging.disable(max(level, before))
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def same_environment() -> Iterator[None]:
    """For libraries that set variables when they are imported.

    scikit-learn sets KMP_DUPLICATE_LIB_OK. A training that builds its data would record it among the variables that its bits depend on,
    and so differ from the same training on data that were there.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def without_tables() -> Iterator[None]:
    """For the import of Beam, which takes up these where they are installed: half a second, and no source here is a table."""
    hidden = [name for name in TABLES if name not in sys.modules]
    # None: an import fails as if it were not installed.
    absent: Any = dict.fromkeys(hidden)
    sys.modules.update(absent)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def importing_beam() -> Iterator[None]:
    """For our modules that are built on Beam, whose import warns and takes up what no source here needs."""
    with silenced(logging.WARNING), without_tables():
        yield
