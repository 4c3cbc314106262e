"""Plays a processor with other caches: importing it overwrites the sizes by which Eigen cuts matrix products into blocks.

Only where the variable `CACHES_PLAYED` holds three sizes in bytes, of L1d, L2 and L3. A training imports it by
`imports=[benchmarks.caches]`. oneDNN reads the processor by itself, and is not played.
"""

import ctypes
import os
from pathlib import Path

import tensorflow as tf

VARIABLE = "CACHES_PLAYED"
# Where TensorFlow's library keeps the sizes, and whether they have been read.
SIZES = "_ZZN5Eigen8internal20manage_caching_sizesENS_6ActionEPlS2_S2_E12m_cacheSizes"
READ = SIZES.replace("_ZZN", "_ZGVZN", 1)


def play(sizes: str) -> None:
    """Overwrites the three sizes, before the first operation."""
    file = Path(tf.sysconfig.get_lib(), "libtensorflow_framework.so.2")
    library = ctypes.CDLL(str(file))
    read = ctypes.c_byte.in_dll(library, READ)
    kept = (ctypes.c_long * 3).in_dll(library, SIZES)
    read.value = 1
    kept[:] = [int(size) for size in sizes.split()]


if os.environ.get(VARIABLE):
    play(os.environ[VARIABLE])
