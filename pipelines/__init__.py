"""Reproducible training pipelines for TensorFlow Model Garden."""

import importlib.util
import os

from pipelines.system import kernels

# Model Garden trains on Keras 2; TensorFlow reads this once, at its import, in every process.
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
kernels.prefer_onednn()
# With gcsfs, etils reads gs:// through fsspec, as sources are read. Without it nothing of ours does, and TensorFlow Datasets
# looks for its index with TensorFlow.
if importlib.util.find_spec("gcsfs"):
    os.environ["EPATH_USE_TF"] = "false"
