"""What makes a training repeat itself in every bit: the order of its input, its random draws, and a record to compare by."""

from pipelines.training.exact.randomness import install

__all__ = ["install"]
