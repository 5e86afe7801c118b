# SPDX-License-Identifier: Apache-2.0
"""FBGEMM's table-batched embedding (torchrec's engine) on the CPU: rows per second, in process.

Exact row-wise Adagrad fused into the backward. Rows are addressed directly: no key is hashed, none
admitted. `pull` is the forward, `both` forward and backward with its update.
"""
import os

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (ComputeDevice,
                                                                    SplitTableBatchedEmbeddingBagsCodegen)

from timing import measure_of

torch.set_num_threads(int(os.environ.get("PEER_THREADS", "1")))
REQUESTS = 64
tables = {}


def table(rows, width):
    if (rows, width) not in tables:
        made = SplitTableBatchedEmbeddingBagsCodegen(
            [(rows, width, EmbeddingLocation.HOST, ComputeDevice.CPU)], optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=0.01, pooling_mode=PoolingMode.NONE)
        made.init_embedding_weights_uniform(-0.05, 0.05)
        tables[rows, width] = made
    return tables[rows, width]


def make(spec):
    """spec: rows, width, batch (distinct rows of a request), work (pull or both)."""
    torch.manual_seed(1)
    embedding = table(spec["rows"], spec["width"])
    requests = [torch.randint(0, spec["rows"], (spec["batch"],)).unique() for _ in range(REQUESTS)]
    gradients = [torch.randn(len(r), spec["width"]) for r in requests]
    at = 0

    def one():
        nonlocal at
        keys, gradient = requests[at % REQUESTS], gradients[at % REQUESTS]
        at += 1
        if spec["work"] == "pull":
            with torch.no_grad():
                embedding(keys, torch.arange(len(keys) + 1))
        else:
            embedding(keys, torch.arange(len(keys) + 1)).backward(gradient)
        return len(keys)

    return measure_of(one, 3)
