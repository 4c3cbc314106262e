"""A Dask cluster, made ready while the process that starts a build still lists the source."""

import contextlib
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.outside import printable, reason
from pipelines.usage import UsageError

NEEDED = "pipelines.data.records"
# Dask chooses it for bags anyway, after it has imported its tables, pandas and pyarrow, to see what there is.
SHUFFLE = {"dataframe.shuffle.method": "tasks"}


@contextmanager
def importing(runner: dict[str, Any]) -> Iterator[None]:
    """Inside, the workers of the cluster that `runner=dask` names import what writes records; other runners have none yet.

    Raises:
        UsageError: no scheduler answers there.
    """
    options = runner.get("options") or {}
    address = options.get("dask_client_address")
    if runner.get("engine") != "dask" or not address:
        yield  # Whoever creates the runner refuses what is missing.
        return
    try:
        import dask  # A second, for this runner alone.
        from distributed import Client
    except ImportError:
        yield
        return
    timeout = options.get("dask_connection_timeout")
    waiting = {} if timeout is None else {"timeout": timeout}
    try:
        client = Client(address, set_as_default=False, **waiting)
    except OSError as error:
        says = f"no scheduler answers at {printable(str(address))}: {reason(error)}"
        raise UsageError(
            f"runner.options.dask_client_address: {says}; start one with: dask scheduler"
        ) from None
    with client, dask.config.set(SHUFFLE):
        # Held until the end: Dask drops what nobody waits for.
        held = []
        for worker in client.scheduler_info()["workers"]:
            held.append(client.submit(_import, pure=False, workers=[worker]))
        yield


def _import() -> None:
    with contextlib.suppress(ImportError):  # The first of its real tasks says so.
        importlib.import_module(NEEDED)
