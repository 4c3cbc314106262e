"""Pictures of built data for a contact sheet: as the official decoder returns them, or as a model is trained on them."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from official.core import task_factory
from official.vision.ops import preprocess_ops

from pipelines.data import reading
from pipelines.data.manifest import Manifest
from pipelines.data.preview import Picture
from pipelines.data.reading import reader


def as_decoded(built: Manifest, count: int) -> Iterator[Picture]:
    """The first records of every shard in turn, as the official decoder returns them."""
    task = reading.load(built.task)
    shards = sum(len(split.shards) for split in built.splits.values())
    of_each_shard = -(-count // shards)
    for file, number, record in itertools.islice(reader.records(built, of_each_shard), count):
        shard = file.split("-of-")[0]
        yield task.as_decoded(
            record,
            built,
            f"{shard} #{number}",
        )


def as_trained(params: Any, built: Manifest, count: int) -> Iterator[Picture]:
    """Training batches as the experiment's own task gives them to its model: augmented, resized, its targets decoded."""
    batches = task_factory.get_task(params.task).build_inputs(params.task.train_data)
    yield from itertools.islice(_pictures(batches, built, params.task.train_data), count)


def _pictures(batches: Any, built: Manifest, data: Any) -> Iterator[Picture]:
    task = reading.load(built.task)
    colours = getattr(task, "colours", _colours)
    for images, labels in batches:
        for number, pixels in enumerate(colours(images, data)):
            yield task.as_trained(
                pixels,
                labels,
                number,
                built,
            )


def _colours(images: Any, data: Any) -> np.ndarray:
    """The colours, 0 to 255, of images that Model Garden normalized."""
    pixels = images.numpy().astype(np.float32)
    colours = pixels * preprocess_ops.STDDEV_NORM + preprocess_ops.MEAN_NORM
    return np.clip(colours * 255, 0, 255).astype(np.uint8)
