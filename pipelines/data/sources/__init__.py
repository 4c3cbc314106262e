"""Sources: each lists its examples without reading images, and later loads one at a time on a worker.

A source is one file in this folder, and its name is the file's. It states and does:

    FACTS: Facts                                     what it needs of a data set, and what it gives
    listing(request) -> Listing                      in the launching process, streaming
    load(example, image, request) -> Loaded          on a worker; raises Rejected
    content(example, request) -> bytes               optional: the image, where it is no separate file
    objects(example, request) -> int                 optional: how many objects an annotation has
    locations(dataset) -> {field: {split: path}}     optional: where its files lie, if no field says it
    prepare(dataset)                                 optional: makes its files where there are none

One whose files are adopted has its FACTS alone. What was read is counted where it is read: by
`listing` in its `Tally`, and by `objects`. What becomes of it is counted where it is written or
rejected, and a build in which the two differ fails.
"""

import functools
import importlib
import pkgutil
from types import ModuleType

from pipelines import own
from pipelines.data.example import Example
from pipelines.data.listing import Facts, Request
from pipelines.usage import UsageError


def names() -> list[str]:
    """All sources, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


@functools.cache
def load(name: str) -> ModuleType:
    """Imports one source; asked for every record.

    Args:
        name: a file of this folder, or a module of the user's own, which has a dot in its name.

    Raises:
        UsageError: there is no such source.
    """
    if "." in name:
        return own.imported(name, "dataset.source")
    if name not in names():
        raise UsageError(f"dataset.source: no source {name!r}; there are: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")


def facts(name: str) -> Facts:
    """What a source states of itself; raises what `load` does."""
    return load(name).FACTS


def objects_of(
    source: ModuleType,
    example: Example,
    request: Request,
) -> int:
    """How many objects an example's annotation has, whatever becomes of them."""
    return source.objects(example, request) if hasattr(source, "objects") else 0
