# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Recommenders Addons' cuckoo table on the CPU: rows per second, in process.

`pull` looks keys up, `both` looks them up and inserts new values (no optimizer: it costs more).
"""
import ctypes
import glob
import os
import sys

# The wheel leaves symbols of the CUDA runtime open, on a CPU too; torch brings that library along.
for folder in sys.path:
    for library in glob.glob(os.path.join(folder, "nvidia/cuda_runtime/lib/libcudart.so.12")):
        ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf
import tensorflow_recommenders_addons as tfra

from timing import measure_of

threads = int(os.environ.get("PEER_THREADS", "1"))
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(threads)
REQUESTS = 64
tables = {}


def table(rows, width):
    if (rows, width) not in tables:
        made = tfra.dynamic_embedding.get_variable(f"rows_{rows}_{width}", key_dtype=tf.int64, value_dtype=tf.float32,
                                                   dim=width, devices=["/CPU:0"], init_size=rows)
        for first in range(0, rows, 500_000):
            keys = np.arange(first, min(rows, first + 500_000), dtype=np.int64)
            made.upsert(tf.constant(keys * 0x9E3779B1), tf.zeros([len(keys), width]))
        tables[rows, width] = made
    return tables[rows, width]


def make(spec):
    """spec: rows, width, batch (distinct rows of a request), work (pull or both)."""
    rng = np.random.default_rng(1)
    rows = table(spec["rows"], spec["width"])
    requests = [tf.constant(np.unique(rng.integers(0, spec["rows"], spec["batch"])) * 0x9E3779B1)
                for _ in range(REQUESTS)]
    pull = tf.function(rows.lookup, reduce_retracing=True)

    @tf.function(reduce_retracing=True)
    def both(keys):
        rows.upsert(keys, rows.lookup(keys) * 0.999)

    work = {"pull": pull, "both": both}[spec["work"]]
    at = 0

    def one():
        nonlocal at
        keys = requests[at % REQUESTS]
        at += 1
        work(keys)
        return keys.shape[0]

    return measure_of(one, 3)
