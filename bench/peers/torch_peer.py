# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the CPU: training samples per second of one variant (see torch_models)."""
import os
import time

import torch

import torch_trainer

torch.set_num_threads(int(os.environ.get("PEER_THREADS", "1")))
torch.set_flush_denormal(True)


def make(spec):
    """spec: the arguments of torch_trainer.Trainer. Compiles and warms up here, outside of the timing."""
    trainer = torch_trainer.Trainer(**spec)
    for _ in range(4):
        trainer.step()

    def measure(seconds):
        steps, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            trainer.step()
            steps += 1
        return spec["batch"] * steps / spent

    return measure
