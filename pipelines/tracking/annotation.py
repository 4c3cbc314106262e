"""Words added to a run after it has ended: what it reproduces, a verdict on it."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.outside import reason
from pipelines.tracking import journal


def annotate(run_dir: Path, uri: str, tags: Mapping[str, Any], files: Sequence[str] = ()) -> None:
    """Adds tags and files of the run directory to a finished run; kept for `trellis sync` where `uri` does not answer."""
    from pipelines.tracking import delivery  # MLflow takes seconds to import.

    for name in files:
        journal.append(run_dir, "file", path=name)
    journal.append(run_dir, "tags", values={name: str(value) for name, value in tags.items()})
    try:
        delivery.deliver(run_dir, uri)
    except Exception as error:  # noqa: BLE001  a tracking server may fail in any way; nothing is lost
        print(
            f"tracking: {reason(error, 200)}; send it later: trellis sync run={run_dir}",
            file=sys.stderr,
        )
