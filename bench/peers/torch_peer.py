# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the CPU: training samples per second of one variant (see torch_models)."""
import os

import torch

import torch_trainer
from timing import measure_of

torch.set_num_threads(int(os.environ.get("PEER_THREADS", "1")))
torch.set_flush_denormal(True)


def make(spec):
    """spec: the arguments of torch_trainer.Trainer. Compiles and warms up here, outside of the timing."""
    trainer = torch_trainer.Trainer(**spec)

    def one():
        trainer.step()
        return spec["batch"]

    return measure_of(one, 4)
