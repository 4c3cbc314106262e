"""Lets TensorFlow Datasets download and prepare a builder; the records are then read without it."""

import tensorflow_datasets as tfds
from etils import epath

from pipelines.config import Dataset
from pipelines.usage import UsageError


def run(dataset: Dataset, folder: epath.Path) -> None:
    """Prepares `dataset.builder` at its version.

    Raises:
        UsageError: there is no such builder or version, or its files cannot be had.
    """
    name = str(dataset.builder)
    root = folder.parents[len(name.partition(":")[0].split("/"))]
    try:
        builder = tfds.builder(name, data_dir=root, file_format="tfrecord")
    except (tfds.core.registered.DatasetNotFoundError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"dataset.builder: {reason}\na builder of your own: prepare it with `tfds build`, then dataset.root=<its data_dir>"
        ) from None
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise UsageError(
            f"dataset.builder: {name} cannot be prepared in {folder}: {error}\nprepare it elsewhere and say where: dataset.root=<folder>"
        ) from None
