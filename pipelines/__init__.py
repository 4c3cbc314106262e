"""Reproducible training pipelines for TensorFlow Model Garden."""

import os

# Model Garden trains on Keras 2; TensorFlow reads this once, at its import, in every process.
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
