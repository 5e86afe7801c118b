# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Keras: training samples per second of a two-layer LSTM as tutorials write it.

Embedding, LSTM, LSTM, Dense under model.fit with Adam. Keras' Adam has no sparse form of an
embedding's update in effect: every step reads and writes all rows and both moments.
"""
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf

import synthetic

FIT_S = 4  # a shorter fit would be its own overhead
threads = int(os.environ.get("PEER_THREADS", "1"))
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(threads)


def make(spec):
    """spec: batch, lengths (a number). Warms up (and so traces) here, outside of the timing."""
    tf.keras.utils.set_random_seed(1)
    layers = tf.keras.layers
    model = tf.keras.Sequential([layers.Embedding(synthetic.ITEMS, 64), layers.LSTM(64, return_sequences=True),
                                 layers.LSTM(64), layers.Dense(1, activation="sigmoid")])
    model.compile(tf.keras.optimizers.Adam(1e-3), "binary_crossentropy")
    batches = synthetic.make_batches(spec["lengths"], spec["batch"] * 64, 1)
    x, y = batches[0].history.T.copy(), batches[0].label

    def fit(samples):
        samples = min(len(x), max(4, round(samples / spec["batch"])) * spec["batch"])
        start = time.perf_counter()
        model.fit(x[:samples], y[:samples], batch_size=spec["batch"], epochs=1, shuffle=False, verbose=0)
        return samples / (time.perf_counter() - start)

    fit(0)
    rate = fit(0)

    def measure(seconds):
        nonlocal rate
        rate = fit(rate * max(seconds, FIT_S))
        return rate

    return measure
