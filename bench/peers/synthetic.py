# SPDX-License-Identifier: Apache-2.0
"""Synthetic batches that every peer trains on, as `meander bench train` draws them: ids by Zipf's
law with exponent 1, histories of a fixed or exponential length that no two samples share.

Arrays are made once and kept in memory, so a peer is timed without its data loading. Samples of a
batch are sorted by length, longest first, which padded variants do not notice and packed ones need.
"""
from dataclasses import dataclass

import numpy as np

ITEMS, CATEGORIES = 370_000, 1_600
LENGTH_MAX, LENGTH_MEAN = 100, 25


@dataclass
class Batch:
    """One batch; time-major: (T, B). Ids beyond a history's length are 0, and `mask` is False there."""
    target: np.ndarray  # (B) item ids
    history: np.ndarray  # (T, B) item ids
    negative: np.ndarray  # (T, B) item ids, for the auxiliary loss
    mask: np.ndarray  # (T, B)
    length: np.ndarray  # (B), non-increasing, >= 1
    label: np.ndarray  # (B) 0 or 1, float32


def zipf(rng, n, shape):
    """Ids in [0, n) with a frequency that falls as 1 / rank."""
    return np.minimum(np.power(n, rng.random(shape)).astype(np.int64), n) - 1


def category_of(items):
    """Each item's category: fixed, zipf like the items, unrelated to their order."""
    rank = np.random.default_rng(3).random(ITEMS)
    return (np.power(CATEGORIES, rank).astype(np.int64) - 1)[items]


def lengths_of(rng, kind, batch):
    """kind: `full` (all LENGTH_MAX), `mean25` (exponential, at most LENGTH_MAX), or a number."""
    if kind == "full":
        length = np.full(batch, LENGTH_MAX)
    elif kind == "mean25":
        length = np.clip(rng.exponential(LENGTH_MEAN, batch), 1, LENGTH_MAX)
    else:
        length = np.full(batch, int(kind))
    return np.sort(length.astype(np.int64))[::-1].copy()


def make_batch(rng, kind, batch):
    steps = LENGTH_MAX if kind in ("full", "mean25") else int(kind)
    length = lengths_of(rng, kind, batch)
    mask = np.arange(steps)[:, None] < length
    return Batch(target=zipf(rng, ITEMS, batch), history=zipf(rng, ITEMS, (steps, batch)) * mask,
                 negative=zipf(rng, ITEMS, (steps, batch)) * mask, mask=mask, length=length, label=(rng.random(batch) < 0.5).astype(np.float32))


def make_batches(kind, batch, count, seed=1):
    rng = np.random.default_rng(seed)
    return [make_batch(rng, kind, batch) for _ in range(count)]
