# SPDX-License-Identifier: Apache-2.0
"""Matrix factorisation, GCN and GraphSAGE in PyTorch, the training steps of examples/{ml1m-ncf,cora-gcn,
cora-graphsage}.yaml on their data: samples a second. make({"model": ..., "variant": ...}); variants are

  mf         sparse    nn.Embedding(sparse=True) and SGD, a user's row looked up for each of its samples
             dense     the same with whole gradients
             shared    whole gradients, a user's row looked up once for its nine samples
             own       a backward of its own, index_add_ into the tables
  gcn        coo, csr  torch.sparse.mm; features dropped by their entries
             dense     features as a whole matrix
             own       CSR with a backward of its own by transposed CSR
  graphsage  bag       nodes as weighted embedding bags of words, neighbours as bags of nodes
             dense     features as a whole matrix, neighbours as bags

Batches of mf are drawn beforehand; GraphSAGE draws the neighbours of each step (numpy, without a loop
over nodes), for they are the step. No L2 in the optimizers, which ours have.
"""
import functools
import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from timing import measure_of

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.environ.get("MEANDER_DATA", os.path.join(ROOT, "../shared/data"))
torch.set_num_threads(int(os.environ.get("PEER_THREADS", "1")))
torch.set_flush_denormal(True)


@functools.cache
def clicks():
    return np.loadtxt(os.path.join(DATA, "ncf_ml1m/ml-1m.train.pairs"), dtype=np.int64)


class Mf:
    USERS, NEGATIVES, WIDTH, RATE, BATCHES = 1024, 8, 192, 147.0, 16
    samples = USERS * (1 + NEGATIVES)

    def __init__(self, variant):
        rng = np.random.default_rng(1)
        pairs = clicks()
        users, items = pairs.max(0) + 1
        chosen = rng.integers(0, len(pairs), (self.BATCHES, self.USERS))
        item = np.concatenate([pairs[chosen, 1][:, :, None],
                               rng.integers(0, items, (self.BATCHES, self.USERS, self.NEGATIVES))], 2)
        self.batches = [(torch.from_numpy(pairs[c, 0]), torch.from_numpy(i)) for c, i in zip(chosen, item)]
        self.label = torch.zeros(self.USERS, 1 + self.NEGATIVES)
        self.label[:, 0] = 1
        sparse = variant == "sparse"
        self.user, self.item = (nn.Embedding(n, self.WIDTH, sparse=sparse) for n in (users, items))
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, 0, 0.1)
        self.bias = nn.Parameter(torch.zeros(()))
        self.sgd = torch.optim.SGD([self.user.weight, self.item.weight], self.RATE)
        self.adam = torch.optim.Adam([self.bias], 1e-3)
        self.run = {"shared": self.shared, "own": self.own}.get(variant, self.plain)
        self.at = 0

    def plain(self, user, item):
        a, b = self.user(user.repeat_interleave(item.shape[1])), self.item(item.view(-1))
        score = (a[:, :-1] * b[:, :-1]).sum(1) + a[:, -1] + b[:, -1] + self.bias
        return self.update(score.view(item.shape))

    def shared(self, user, item):
        a, b = self.user(user), self.item(item)
        score = torch.bmm(b[:, :, :-1], a[:, :-1, None])[:, :, 0] + a[:, -1:] + b[:, :, -1] + self.bias
        return self.update(score)

    def update(self, score):
        loss = F.binary_cross_entropy_with_logits(score, self.label)
        loss.backward()
        for optimizer in (self.sgd, self.adam):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    @torch.no_grad()
    def own(self, user, item):
        a, b = self.user.weight[user], F.embedding(item, self.item.weight)
        of_user, of_item = a[:, -1:].clone(), b[:, :, -1].clone()
        a[:, -1] = 1
        b[:, :, -1] = 1
        score = torch.bmm(b[:, :, :-1], a[:, :-1, None])[:, :, 0] + of_user + of_item + self.bias
        d = (score.sigmoid() - self.label) / score.numel()
        self.bias.grad = d.sum()
        self.adam.step()
        self.user.weight.index_add_(0, user, torch.bmm(d[:, None], b)[:, 0], alpha=-self.RATE)
        self.item.weight.index_add_(0, item.view(-1), (d[:, :, None] * a[:, None]).flatten(0, 1), alpha=-self.RATE)
        return F.binary_cross_entropy_with_logits(score, self.label).item()

    def step(self):
        self.at += 1
        return self.run(*self.batches[self.at % self.BATCHES])


# ---------------------------------------------------------------- Cora


class Cora:
    def __init__(self):
        rows = [line.split() for line in open(os.path.join(DATA, "cora/cora_nodes.txt"))]
        links = np.loadtxt(os.path.join(DATA, "cora/cora_edges.txt"), dtype=np.int64)
        self.links = np.unique(np.sort(links, 1), axis=0).T
        self.of_class = torch.tensor([int(row[1]) for row in rows])
        self.train = torch.tensor([n for n, row in enumerate(rows) if row[2] == "train"])
        self.has = np.array([(n, int(w)) for n, row in enumerate(rows) for w in row[3:]]).T
        self.nodes, self.words = len(rows), int(self.has[1].max()) + 1


def csr(rows, columns, values, shape):
    order = np.lexsort((columns, rows))
    begin = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    return (torch.from_numpy(begin), torch.from_numpy(columns[order]),
            torch.from_numpy(values[order].astype(np.float32)), shape), order


class Sparse:
    """A matrix whose values may be dropped, in each of the forms."""

    def __init__(self, rows, columns, values, shape, form):
        self.form = form
        self.parts, order = csr(rows, columns, values, shape)
        self.place = torch.from_numpy(np.stack([rows[order], columns[order]]))
        if form == "dense":
            self.whole = self.matrix().to_dense()
        if form == "own":
            turned, other = csr(columns[order], rows[order], values[order], shape[::-1])
            self.turned, self.other = turned, torch.from_numpy(other)
        self.fixed = None if form == "dense" else self.forms(self.parts[2])

    def matrix(self, values=None):
        begin, columns, kept, shape = self.parts
        return torch.sparse_csr_tensor(begin, columns, kept if values is None else values, shape)

    def forms(self, values):
        if self.form == "coo":
            return torch.sparse_coo_tensor(self.place, values, self.parts[3], is_coalesced=True)
        if self.form == "own":
            begin, columns, _, shape = self.turned
            return self.matrix(values), torch.sparse_csr_tensor(begin, columns, values[self.other], shape)
        return self.matrix(values)

    def times(self, x, dropout=0.0):
        if self.form == "dense":
            return F.dropout(self.whole, dropout) @ x
        made = self.forms(F.dropout(self.parts[2], dropout)) if dropout else self.fixed
        if self.form == "own":
            return OwnProduct.apply(*made, x)
        return torch.sparse.mm(made, x) if self.form == "coo" else made @ x


class OwnProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, turned, x):
        ctx.turned = turned
        return a @ x

    @staticmethod
    def backward(ctx, dout):
        return None, None, ctx.turned @ dout


def adjacency(nodes, links):
    """D^-1/2 (A + 1) D^-1/2: rows, columns, values, shape."""
    own = np.arange(nodes)
    rows, columns = np.concatenate([links[0], links[1], own]), np.concatenate([links[1], links[0], own])
    root = 1 / np.sqrt(np.bincount(rows, minlength=nodes))
    return rows, columns, root[rows] * root[columns], (nodes, nodes)


def features(has, shape):
    count = np.bincount(has[0], minlength=shape[0])
    return has[0], has[1], 1 / count[has[0]], shape


def glorot(rows, columns):
    return nn.Parameter(torch.empty(rows, columns).uniform_(-1, 1) * (6 / (rows + columns)) ** 0.5)


class Gcn:
    HIDDEN, CLASSES, DROPOUT, DECAY = 16, 7, 0.5, 5e-4

    def __init__(self, variant, data=None):
        data = data or Cora()
        self.a = Sparse(*adjacency(data.nodes, data.links), "csr" if variant == "dense" else variant)
        self.x = Sparse(*features(data.has, (data.nodes, data.words)), variant)
        self.train, self.of_class = data.train, data.of_class[data.train]
        self.w0, self.w1 = glorot(data.words, self.HIDDEN), glorot(self.HIDDEN, self.CLASSES)
        self.adam = torch.optim.Adam([self.w0, self.w1], 0.01, fused=True)
        self.samples = len(self.train)

    def scores(self, dropout):
        hidden = torch.relu(self.a.times(self.x.times(self.w0, dropout)))
        return self.a.times(F.dropout(hidden, dropout) @ self.w1)[self.train]

    def step(self):
        loss = F.cross_entropy(self.scores(self.DROPOUT), self.of_class) + self.DECAY / 2 * self.w0.pow(2).sum()
        loss.backward()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return loss.item()


class Neighbours:
    """Draws as Meander does: all of a node with at most `fanout`, else one from each of as many equal strips."""

    def __init__(self, nodes, links):
        (self.begin, self.to, _, _), _ = csr(*[np.concatenate(ends) for ends in (links, links[::-1])],
                                             np.ones(2 * links.shape[1]), (nodes, nodes))
        self.begin, self.to = self.begin.numpy(), self.to.numpy()
        self.number = np.full(nodes, -1)

    def hop(self, rng, nodes, fanout):
        """(all nodes, `nodes` first; for each drawn one: its number among them, its share; where each node's begin)."""
        degree = self.begin[nodes + 1] - self.begin[nodes]
        count = np.minimum(degree, fanout)
        offsets = np.cumsum(count) - count
        place = np.arange(count.sum()) - np.repeat(offsets, count)
        many = np.repeat(degree / np.maximum(count, 1), count)
        drawn = self.to[np.repeat(self.begin[nodes], count)
                        + np.where(many > 1, (place + rng.random(len(place))) * many, place).astype(np.int64)]
        self.number[nodes] = np.arange(len(nodes))
        new = drawn[self.number[drawn] < 0]
        new = np.unique(new)
        self.number[new] = len(nodes) + np.arange(len(new))
        index, everything = self.number[drawn], np.concatenate([nodes, new])
        self.number[everything] = -1
        share = np.repeat(1 / np.maximum(count, 1), count).astype(np.float32)
        return everything, [torch.from_numpy(part) for part in (index, share, offsets)]


def bag(rows, index, share, offsets):
    return F.embedding_bag(index, rows, offsets, mode="sum", per_sample_weights=share)


class GraphSage:
    HIDDEN, CLASSES, DROPOUT, FANOUT = 32, 7, 0.7, (10, 10)

    def __init__(self, variant, data=None):
        data = data or Cora()
        self.rng = np.random.default_rng(1)
        self.neighbours = Neighbours(data.nodes, data.links)
        self.train, self.of_class = data.train, data.of_class[data.train]
        self.table = glorot(data.words, 2 * self.HIDDEN)
        self.bias0 = nn.Parameter(torch.zeros(self.HIDDEN))
        self.kernel1, self.bias1 = glorot(2 * self.HIDDEN, self.CLASSES), nn.Parameter(torch.zeros(self.CLASSES))
        self.adam = torch.optim.Adam([self.table, self.bias0, self.kernel1, self.bias1], 0.01, fused=True)
        (begin, self.word, value, _), _ = csr(*features(data.has, (data.nodes, data.words)))
        self.begin, self.value, self.word = begin.numpy(), value.numpy(), self.word.numpy()
        whole = Sparse(*features(data.has, (data.nodes, data.words)), "dense").whole
        self.whole = whole if variant == "dense" else None
        self.samples = len(self.train)

    def described(self, nodes):
        """(nodes, 2 HIDDEN) what the table makes of the words of each."""
        if self.whole is not None:
            return self.whole[torch.from_numpy(nodes)] @ self.table
        count = self.begin[nodes + 1] - self.begin[nodes]
        offsets = np.cumsum(count) - count
        place = np.repeat(self.begin[nodes] - offsets, count) + np.arange(count.sum())
        return bag(self.table, *[torch.from_numpy(part) for part in (self.word[place], self.value[place], offsets)])

    def scores(self, sizes, hops, rows, dropout):
        own, others = F.dropout(rows, dropout).chunk(2, 1)
        h = torch.relu(own[:sizes[1]] + bag(others.contiguous(), *hops[1]) + self.bias0)
        h = F.dropout(h, dropout)
        return torch.cat([h[:sizes[0]], bag(h, *hops[0])], 1) @ self.kernel1 + self.bias1

    def step(self):
        nodes, hops, sizes = self.train.numpy(), [], [self.samples]
        for fanout in self.FANOUT:
            nodes, drawn = self.neighbours.hop(self.rng, nodes, fanout)
            hops.append(drawn)
            sizes.append(len(nodes))
        loss = F.cross_entropy(self.scores(sizes, hops, self.described(nodes), self.DROPOUT), self.of_class)
        loss.backward()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return loss.item()


MODELS = {"mf": Mf, "gcn": Gcn, "graphsage": GraphSage}


def make(spec):
    torch.manual_seed(1)
    model = MODELS[spec["model"]](spec["variant"])

    def one():
        model.step()
        return model.samples

    return measure_of(one, 4)
