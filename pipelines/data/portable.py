"""A data set's source as files that can be taken elsewhere: listed here, and found again where they were laid out."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.config import Dataset, absolute
from pipelines.data import content, files, folders, locations, sources
from pipelines.usage import UsageError

Files = dict[str, dict[str, str]]  # by place, as an absolute path, then by the path inside


def source_files(data_dir: str, dataset: Dataset, built: Mapping[str, Any]) -> Files | None:
    """The files of a source on this disk, by place; None where it is not made of such files.

    An embedded source has none: its generator writes it again.

    Args:
        built: what the manifest of the data says of their source.

    Raises:
        UsageError: it is not what they were built from any longer.
    """
    if dataset.embedded:
        return {}
    if hasattr(sources.load(dataset.source), "locations"):
        return None
    found = content.find(data_dir, dataset)
    if content.by_place(found) != built.get("digests"):
        raise UsageError(
            f"dataset: the files of {dataset.name} are no longer what the run learned from; bring the old ones back"
        )
    by_place: Files = {}
    for part, by_split in found.places.items():
        for split, place in by_split.items():
            if files.is_remote(place) or folders.is_pattern(place):
                return None
            names = found.digests[part][split]
            by_place[place] = {name: folders.path_of(place, name) for name in names}
    return by_place


def moved(dataset: Dataset, names: Mapping[str, str], root: str) -> Dataset:
    """The data set with its places below `root`.

    Args:
        names: of each place there, by the absolute path that it had.
    """
    if not names:
        return dataset
    old_root = absolute(dataset.root) if dataset.root else os.getcwd()
    laid_out = replace(dataset, root=root)
    for field in locations.FIELDS:
        value = getattr(dataset, field)
        setattr(laid_out, field, _renamed(value, names, old_root))
    return laid_out


def _renamed(value: Any, names: Mapping[str, str], root: str) -> Any:
    if isinstance(value, dict):
        return {split: _renamed(value[split], names, root) for split in value}
    if isinstance(value, list):
        return [_renamed(path, names, root) for path in value]
    return names[os.path.join(root, value)] if isinstance(value, str) else value
