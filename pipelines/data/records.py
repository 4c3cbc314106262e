"""Beam: from an index of examples to shards of records.

Positions in the index travel through the shuffle, images do not: whoever writes a shard reads them.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from pipelines.data import index, runners, shards
from pipelines.data.shards import Job

PARTS = 64  # at most so many parts of a split's index


def write(job: Job, runner: dict[str, Any]) -> None:
    """Writes the job's shards, each with a summary beside it."""
    examples = sum(job.index.examples.values())
    with runners.pipeline(
        runner,
        examples=examples,
        shards=len(job.shards),
    ) as pipeline:
        located = pipeline | "Read the source" >> ReadSource(job)
        located | "Write the shards" >> WriteShards(job)


class ReadSource(beam.PTransform):
    """Positions of examples in the index, each under the name of its shard."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        parts = beam.Create(list(_parts(self._job)), reshuffle=False)
        located = beam.FlatMap(shards.positions, self._job)
        return pipeline | "Name parts of the index" >> parts | "List positions" >> located


def _parts(job: Job) -> Iterator[tuple[str, int, int]]:
    """(split, number, how many) of the parts that the index is read in.

    As many as there are shards: a runner that keeps a collection's partitions spreads the shards over as many workers.
    """
    splits = Counter(index.split_of(shard) for shard in job.shards)
    for split, count in sorted(splits.items()):
        parts = min(count, PARTS)
        for part in range(parts):
            yield split, part, parts


class WriteShards(beam.PTransform):
    """One file per shard, in the order of the keys' hashes: arrival order is not stable, and order by key sorts classes."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def expand(self, located: beam.PCollection) -> beam.PCollection:
        written = beam.Map(shards.write, self._job)
        return located | "Group by shard" >> beam.GroupByKey() | "Write each shard" >> written
