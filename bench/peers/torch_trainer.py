# SPDX-License-Identifier: Apache-2.0
"""Trains one variant of torch_models on synthetic batches: tables, optimizers, one step.

Gradients of tables are sparse in every variant. Two ways to look rows up and update them are
there, and the faster one counts:
  sparse  nn.Embedding(sparse=True) with torch.optim.SparseAdam or Adagrad, as people write it
  unique  each distinct row of a batch is gathered once and updated once (lazy Adam)
"""
import math

import numpy as np
import torch
import torch.nn.functional as F

import synthetic
import torch_history_models
from torch_models import D, Lstm, MODELS

MODELS = MODELS | torch_history_models.MODELS

RATE = 1e-3


class TorchBatch:
    """A batch as tensors, with the index of packed rows that packed variants need."""

    def __init__(self, batch, model, variant):
        self.label = torch.from_numpy(batch.label)
        self.mask = torch.from_numpy(batch.mask)
        self.targets = len(batch.label)
        packed = variant in ("expert", "handwritten") and model not in torch_history_models.MODELS
        if packed:
            self.index(batch)
        elif variant == "bag":
            torch_history_models.prepare_bag(self, batch.mask, batch.length)
        elif model in torch_history_models.MODELS:
            torch_history_models.prepare(self, batch.mask, batch.length)
        self.ids = self.ids_of(batch, model, packed, variant == "bag")

    def index(self, batch):
        steps, samples = np.nonzero(batch.mask)  # time-major
        number = np.cumsum(batch.mask.ravel()).reshape(batch.mask.shape) - 1
        self.sizes = [n for n in batch.mask.sum(1).tolist() if n]
        self.sizes_tensor = torch.tensor(self.sizes)
        self.sample = torch.from_numpy(samples)
        self.position = torch.from_numpy(np.flatnonzero(batch.mask))
        self.before = torch.from_numpy(number[steps[self.sizes[0]:] - 1, samples[self.sizes[0]:]])
        self.last = torch.from_numpy(number[batch.length - 1, np.arange(len(batch.length))])

    def ids_of(self, batch, model, packed, bag):
        """{table: ids}, the ids of all fields of a table in one array, and the fields' shapes."""
        if model == "lstm":
            self.shapes = [batch.history.shape]
            return {"item": torch.from_numpy(batch.history.ravel())}
        pick = (lambda x, m: x.T[m.T]) if bag else (lambda x, m: x[m]) if packed else (lambda x, m: x)
        later = batch.mask.copy()
        later[0] = False
        fields = [batch.target, pick(batch.history, batch.mask)]
        if model == "dien":
            fields.append(pick(batch.negative, later))
        self.shapes = [f.shape for f in fields]
        items = np.concatenate([f.ravel() for f in fields])
        return {"item": torch.from_numpy(items), "category": torch.from_numpy(synthetic.category_of(items))}

    def fields(self, item, category):
        """Rows of the concatenated fields, item and category side by side -> one tensor a field."""
        rows = item if category is None else torch.cat([item, category], 1)
        sizes = [math.prod(s) for s in self.shapes]
        return [r.view(*s, -1) for r, s in zip(rows.split(sizes), self.shapes)]


class Lookup:
    """Rows of the tables beside each other; `places` is {table: (index of each id, weights, sparse gradient)}."""

    def __init__(self, places):
        self.places = places.values()

    def rows(self, count):
        """Of the first `count` ids."""
        return torch.cat([F.embedding(i[:count], w, sparse=s) for i, w, s in self.places], 1)

    def bag(self, batch, mode, weights=None):
        """The sum or mean of each sample's ids, which come behind those of the targets."""
        return torch.cat([F.embedding_bag(i[batch.targets:], w, batch.offsets, mode=mode, sparse=s,
                                          per_sample_weights=weights) for i, w, s in self.places], 1)


class SparseTables:
    def __init__(self, sizes, width, optimizer):
        self.tables = {name: torch.nn.Embedding(n, width, sparse=True) for name, n in sizes.items()}
        weights = [t.weight for t in self.tables.values()]
        for w in weights:
            torch.nn.init.normal_(w, 0, 0.05)
        make = {"adam": torch.optim.SparseAdam, "adagrad": torch.optim.Adagrad}[optimizer]
        self.optimizer = make(weights, lr=RATE)

    def places(self, ids):
        return {name: (i, self.tables[name].weight, True) for name, i in ids.items()}

    def push(self):
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def weight(self, name):
        return self.tables[name].weight.detach()


class UniqueTables:
    """Distinct rows of a batch in, their gradient out; Adam on these rows with the table's step."""

    def __init__(self, sizes, width, optimizer):
        self.rows = {name: torch.randn(n, width) * 0.05 for name, n in sizes.items()}
        count = {"adam": 2, "adagrad": 1}[optimizer]
        self.state = {name: [torch.zeros_like(w) for _ in range(count)] for name, w in self.rows.items()}
        self.steps = 0

    def places(self, ids):
        self.held = {}
        out = {}
        for name, i in ids.items():
            distinct, inverse = torch.unique(i, return_inverse=True)
            local = self.rows[name].index_select(0, distinct).requires_grad_()
            self.held[name] = (distinct, local)
            out[name] = (inverse, local, False)
        return out

    def push(self):
        self.steps += 1
        for name, (distinct, local) in self.held.items():
            update = self.adam if len(self.state[name]) == 2 else self.adagrad
            update(name, distinct, local.detach(), local.grad)

    def adam(self, name, distinct, row, g):
        m, v = self.state[name]
        mean = torch.lerp(m.index_select(0, distinct), g, 0.1)
        square = v.index_select(0, distinct).mul_(0.999).addcmul_(g, g, value=0.001)
        rate = RATE * math.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        m.index_copy_(0, distinct, mean)
        v.index_copy_(0, distinct, square)
        self.rows[name].index_copy_(0, distinct, torch.addcdiv(row, mean, square.sqrt().add_(1e-8), value=-rate))

    def adagrad(self, name, distinct, row, g):
        (s,) = self.state[name]
        total = torch.addcmul(s.index_select(0, distinct), g, g)
        s.index_copy_(0, distinct, total)
        updated = torch.addcdiv(row, g, total.sqrt().add_(1e-10), value=-RATE)
        self.rows[name].index_copy_(0, distinct, updated)

    def weight(self, name):
        return self.rows[name]


TABLES = {"sparse": SparseTables, "unique": UniqueTables}


class Trainer:
    """step() trains the next of a fixed ring of batches and returns its loss."""

    def __init__(self, model, variant, lengths, batch, tables="sparse", optimizer="adam", precision="f32", count=16,
                 seed=1):
        torch.manual_seed(seed)
        self.precision = precision
        self.net = MODELS[model]()
        self.batches = [TorchBatch(b, model, variant) for b in synthetic.make_batches(lengths, batch, count, seed)]
        sizes = {"item": synthetic.ITEMS}
        if model != "lstm":
            sizes["category"] = synthetic.CATEGORIES
        self.tables = TABLES[tables](sizes, Lstm.WIDTH if model == "lstm" else D, optimizer)
        self.dense = torch.optim.Adam(self.net.parameters(), lr=RATE, fused=True)
        self.loss, self.bags = self.loss_of(variant), variant == "bag"
        self.at = 0

    def loss_of(self, variant):
        if variant == "padded":
            return self.net.padded
        if variant == "compiled":
            return self.net.compile()
        if variant == "expert" and hasattr(self.net, "expert"):
            return self.net.expert
        if variant == "bag":
            return self.net.bag
        return lambda rows, batch: self.net.packed(rows, batch, handwritten=variant == "handwritten")

    def backward(self, batch):
        places = self.tables.places(batch.ids)
        if self.bags:
            rows = Lookup(places)
        else:
            pulled = {name: F.embedding(i, w, sparse=s) for name, (i, w, s) in places.items()}
            rows = batch.fields(pulled["item"], pulled.get("category"))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.loss(rows, batch)
        loss.backward()
        return loss.item()

    def step(self):
        batch = self.batches[self.at % len(self.batches)]
        self.at += 1
        loss = self.backward(batch)
        self.dense.step()
        self.dense.zero_grad(set_to_none=True)
        self.tables.push()
        return loss
