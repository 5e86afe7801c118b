# SPDX-License-Identifier: Apache-2.0
"""The base model, decaying interest, BST and Caser in PyTorch, each in variants of one and the same function.

  padded   what people write: histories padded to T steps, a mask, nn.Conv1d, keys and values of every behaviour
  expert   what is shared is computed once: BST's kernels on the query and on what it saw, not on the history;
           Caser's filters of all heights as one product, whose parts are shifted and added
  bag      means and decayed sums straight from the tables, on valid rows only: F.embedding_bag

Formulas and sizes as in models/*.cc; the head as in torch_models (one column instead of two, no scale). Step 0 of
a history is its NEWEST behaviour, padding comes after the oldest one. `check` holds variants to each other, and
`bench/models_vs_pytorch --check` all of them to the values that Meander's tests hold its models to.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from torch_models import E, head, log_loss

LONGEST = 100


class OfHistory(nn.Module):
    """loss = head([q, user, q * user, ...]); `rows` are the target's and the history's (T, B, w)."""

    def __init__(self, width, columns):
        super().__init__()
        self.head = head(columns * width)

    def logits(self, q, keys, batch, way):
        user, more = self.user(q, keys, batch, way)
        return self.head(torch.cat([q, user, q * user, *more], 1)).squeeze(1)

    def padded(self, rows, batch):
        return log_loss(self.logits(*rows, batch, "padded"), batch.label)

    def expert(self, rows, batch):
        return log_loss(self.logits(*rows, batch, "expert"), batch.label)


def mean_of(keys, batch):
    return (keys * batch.mask.unsqueeze(2)).sum(0) / batch.count


class Dnn(OfHistory):
    def __init__(self, width=E):
        super().__init__(width, 3)

    def user(self, q, keys, batch, way):
        return mean_of(keys, batch), []

    def bag(self, lookup, batch):
        q = lookup.rows(batch.targets)
        user = lookup.bag(batch, "mean")
        return log_loss(self.head(torch.cat([q, user, q * user], 1)).squeeze(1), batch.label)


class Decay(OfHistory):
    """The mean of behaviours, weighted by exp(-rate age); the rate is learned."""

    def __init__(self, width=E, half_life_h=72):
        super().__init__(width, 3)
        self.log_rate = nn.Parameter(torch.zeros(()))
        self.rate = math.log(2) / half_life_h

    def weights(self, age):
        return torch.exp(-self.rate * self.log_rate.exp() * age)

    def user(self, q, keys, batch, way):
        w = self.weights(batch.age) * batch.mask
        return (keys * (w / w.sum(0)).unsqueeze(2)).sum(0), []

    def bag(self, lookup, batch):
        w = self.weights(batch.bag_age)
        total = torch.zeros(batch.targets).index_add(0, batch.bag_sample, w)
        w = w / total.index_select(0, batch.bag_sample)
        q = lookup.rows(batch.targets)
        user = lookup.bag(batch, "sum", w)
        return log_loss(self.head(torch.cat([q, user, q * user], 1)).squeeze(1), batch.label)


class Bst(OfHistory):
    def __init__(self, width=E, heads=4, positions=LONGEST):
        super().__init__(width, 4)
        self.heads = heads
        self.positions = nn.Parameter(0.1 * torch.randn(positions, width))  # the newest behaviour's first
        self.query, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.keys, self.values = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dense1, self.dense2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.prelu = nn.PReLU(4 * width, 0.1)

    def user(self, q, keys, batch, way):
        x = torch.cat([q.unsqueeze(0), keys + self.positions[:len(keys)].unsqueeze(1)])
        seen = (self.seen_padded if way == "padded" else self.seen_expert)(q, x, batch.unseen)
        y = self.norm1(q + self.output(seen))
        z = self.norm2(y + self.dense2(self.prelu(self.dense1(y))))
        return mean_of(keys, batch), [z]

    def seen_padded(self, q, x, unseen):
        """unseen (B, 1, 1, 1 + T): -inf on padding."""
        steps, samples, width = x.shape
        split = lambda t: t.view(-1, samples, self.heads, width // self.heads).permute(1, 2, 0, 3)
        seen = F.scaled_dot_product_attention(split(self.query(q)), split(self.keys(x)), split(self.values(x)), unseen)
        return seen.reshape(samples, width)

    def seen_expert(self, q, x, unseen):
        """(q Wk^T) . x_j for each head, and (sum of a_j x_j) Wv: x is read twice, and never projected."""
        width = q.shape[1]
        each = width // self.heads
        query = self.query(q).view(-1, self.heads, each)
        kernel = self.keys.weight.view(self.heads, each, width)
        query = torch.einsum("bhe,hew->bhw", query, kernel) * each**-0.5
        x = x.transpose(0, 1).contiguous()
        a = torch.softmax(torch.baddbmm(unseen[:, 0], query, x.transpose(1, 2)), -1)
        seen = torch.bmm(a, x)  # (B, heads, width)
        return torch.einsum("bhw,hew->bhe", seen, self.values.weight.view(self.heads, each, width)).reshape(-1, width)


class Caser(OfHistory):
    HEIGHTS, FILTERS, NEWEST, VERTICAL = (2, 3, 4), 16, 20, 4

    def __init__(self, width=E):
        super().__init__(width, 3)
        self.horizontal = nn.ModuleList(nn.Conv1d(width, self.FILTERS, h) for h in self.HEIGHTS)
        self.vertical = nn.Linear(self.NEWEST, self.VERTICAL, bias=False)
        self.features = nn.Linear(len(self.HEIGHTS) * self.FILTERS + self.VERTICAL * width, width)

    def user(self, q, keys, batch, way):
        keys = keys * batch.mask.unsqueeze(2)
        features = self.windows_padded(keys, batch) if way == "padded" else self.windows_expert(keys, batch)
        newest = keys[:self.NEWEST]
        sums = torch.einsum("vt,tbw->bvw", self.vertical.weight[:, :len(newest)], newest).flatten(1)
        return torch.relu(self.features(torch.cat([*features, sums], 1))), []

    def windows_padded(self, keys, batch):
        x = keys.permute(1, 2, 0)
        return [torch.relu(conv(x)).masked_fill(over.t().unsqueeze(1), 0).amax(2)
                for conv, over in zip(self.horizontal, batch.over)]

    def windows_expert(self, keys, batch):
        """A window's value is never below 0, so what is masked need not be told from 0."""
        kernels = torch.cat([conv.weight.permute(1, 2, 0).flatten(1) for conv in self.horizontal], 1)
        parts = (keys.view(-1, keys.shape[2]) @ kernels).view(*keys.shape[:2], -1)
        features, at, f = [], 0, self.FILTERS
        for conv, over, height in zip(self.horizontal, batch.over, self.HEIGHTS):
            windows = len(keys) - height + 1
            total = conv.bias
            for i in range(height):
                total = total + parts[i:i + windows, :, at:at + f]
                at += f
            features.append(torch.relu(total.masked_fill(over.unsqueeze(2), -1).amax(0)))
        return features


def prepare(batch, mask, length):
    """What the variants need of a TorchBatch beside its rows: numpy `mask` (T, B) and `length` (B)."""
    batch.count = torch.from_numpy(length).float().unsqueeze(1)
    steps = torch.arange(len(mask))
    batch.age = (0.5 * (steps + 1)).unsqueeze(1).expand(mask.shape)  # hours: one behaviour in each half hour
    unseen = torch.zeros(mask.shape[1], 1, 1, 1 + len(mask))
    unseen[:, 0, 0, 1:].masked_fill_(~torch.from_numpy(mask).t(), -torch.inf)
    batch.unseen = unseen
    lengths = torch.from_numpy(length)
    batch.over = [steps[:len(mask) - h + 1, None] >= (lengths - h + 1).clamp(min=1) for h in Caser.HEIGHTS]


def prepare_bag(batch, mask, length):
    """Sample after sample: where each one's rows begin, whose each row is, its age."""
    batch.offsets = torch.from_numpy(length).cumsum(0) - torch.from_numpy(length)
    sample, step = torch.from_numpy(mask).t().nonzero(as_tuple=True)
    batch.bag_sample, batch.bag_age = sample, 0.5 * (step + 1).float()


MODELS = {"dnn": Dnn, "decay": Decay, "bst": Bst, "caser": Caser}
