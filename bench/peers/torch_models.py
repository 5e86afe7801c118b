# SPDX-License-Identifier: Apache-2.0
"""DIEN, DIN and a two-layer LSTM in PyTorch, each in several variants of one and the same function.

  padded       what people write: every history padded to T steps, a Python loop over the AUGRU
  compiled     `padded` with torch.compile: all but the recurrences in a few graphs, and the AUGRU
               in graphs of CHUNK unrolled steps (all 100 in one graph take minutes to compile)
  expert       no padding anywhere: attention, auxiliary loss and projections on valid rows only,
               GRU and AUGRU loops over a batch that shrinks; products with what is
               shared are shared (the query's part of the attention, a state's of the auxiliary loss)
  handwritten  `expert` with both recurrences as autograd functions with a backward of their own

Sizes as in the DIEN paper's code: embeddings of 18, hidden 36, attention 80-40, auxiliary net
100-50, head 200-80 with Dice. The GRU step is PyTorch's own (reset after the product), in the
AUGRU too: one product per step, which suits PyTorch best. `check` holds variants to each other.
"""
import functools

import torch
import torch.nn.functional as F
from torch import nn

D, E, H = 18, 36, 36


def compiled(function):
    return torch.compile(function, fullgraph=True, dynamic=False)


def log_loss(logit, label):
    return F.binary_cross_entropy_with_logits(logit, label)


# ---------------------------------------------------------------- recurrences


def gru_step(x, h, wh, bh, a):
    """One GRU step on x (n, 3H) = input gates; `a` (n, 1) or None scales the update (AUGRU)."""
    gh = torch.addmm(bh, h, wh)
    r, z = (x[:, :2 * H] + gh[:, :2 * H]).sigmoid().chunk(2, 1)
    c = torch.addcmul(x[:, 2 * H:], r, gh[:, 2 * H:]).tanh()
    w = 1 - z
    return torch.lerp(h, c, w if a is None else w * a)


CHUNK = 10


def gru_chunk(gates, h, wh, bh, a=None):
    """gates (T, B, 3H), h (B, H), a (T, B, 1) or None -> states (T, B, H), by a loop over time."""
    states = []
    weights = [None] * len(gates) if a is None else a.unbind(0)
    for x, at in zip(gates.unbind(0), weights):
        h = gru_step(x, h, wh, bh, at)
        states.append(h)
    return torch.stack(states)


def gru_chunks(chunk, gates, wh, bh, a):
    """The last state (B, H), by `chunk` (a compiled gru_chunk) on CHUNK steps at a time."""
    h = gates.new_zeros(gates.shape[1], H)
    for x, at in zip(gates.split(CHUNK), a.split(CHUNK)):
        h = chunk(x, h, wh, bh, at)[-1]
    return h


def gru_packed(gates, wh, bh, sizes, a=None):
    """gates (N, 3H) packed time-major with sizes[t] rows at step t, a (N, 1) or None.

    -> states (N, H) packed, last states (B, H). Split once: a slice per step would have a backward
    that fills a whole (N, 3H) gradient at each step, which is what makes the packed nn.GRU slow.
    """
    h = gates.new_zeros(sizes[0], H)
    states, done = [], []
    weights = [None] * len(sizes) if a is None else a.split(sizes)
    for x, at in zip(gates.split(sizes), weights):
        if len(x) < len(h):
            done.append(h[len(x):])
            h = h[:len(x)]
        h = gru_step(x, h, wh, bh, at)
        states.append(h)
    return torch.cat(states), torch.cat([h] + done[::-1])


class PackedGru(torch.autograd.Function):
    """States (N, H) of a packed GRU or AUGRU; backward keeps only the recurrence in its loop."""

    @staticmethod
    def forward(ctx, gates, wh, bh, a, sizes):
        n = len(gates)
        rz, ghn, c, w, before, states = (gates.new_empty(n, k) for k in (2 * H, H, H, H, H, H))
        h = gates.new_zeros(sizes[0], H)
        at = 0
        for size in sizes:
            rows = slice(at, at + size)
            h = h[:size]
            before[rows] = h
            gh = torch.addmm(bh, h, wh)
            gate = torch.add(gates[rows, :2 * H], gh[:, :2 * H], out=rz[rows]).sigmoid_()
            ghn[rows] = gh[:, 2 * H:]
            new = torch.addcmul(gates[rows, 2 * H:], gate[:, :H], gh[:, 2 * H:], out=c[rows]).tanh_()
            weight = torch.sub(1, gate[:, H:], out=w[rows])
            if a is not None:
                weight.mul_(a[rows])
            h = torch.lerp(h, new, weight, out=states[rows])
            at += size
        ctx.save_for_backward(rz, ghn, c, w, before, wh, a)
        ctx.sizes = sizes
        return states

    @staticmethod
    def backward(ctx, dstates):
        rz, ghn, c, w, before, wh, a = ctx.saved_tensors
        r, z = rz[:, :H], rz[:, H:]
        diff = c - before
        to_c = w * (1 - c * c)  # d(before tanh) / d(state)
        to_r = to_c * ghn * r * (1 - r)
        to_z = -diff * z * (1 - z)
        if a is not None:
            to_z = to_z * a
        scale = torch.cat([to_r, to_z, to_c * r], 1)  # d(hidden gates) / d(state), elementwise
        keep = 1 - w
        dh, dgh = torch.empty_like(c), torch.empty_like(scale)
        back = wh.t().contiguous()
        at, carry = len(c), None
        for size in reversed(ctx.sizes):
            at -= size
            rows = slice(at, at + size)
            d = dh[rows]
            d.copy_(dstates[rows])
            if carry is not None:
                d[:len(carry)] += carry
            dg = dgh[rows]
            torch.mul(d.unsqueeze(1), scale[rows].view(size, 3, H), out=dg.view(size, 3, H))
            carry = torch.addmm(d * keep[rows], dg, back)
        dgates = torch.cat([dgh[:, :2 * H], dh * to_c], 1)
        da = None if a is None else (dh * diff * (1 - z)).sum(1, keepdim=True)
        return dgates, before.t() @ dgh, dgh.sum(0), da, None


# ---------------------------------------------------------------- parts


class Dice(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        d = x - x.mean(0)
        p = torch.sigmoid(d * torch.rsqrt((d * d).mean(0) + 1e-9))
        return x * (p + (1 - p) * self.alpha)


def head(width, first=200, second=80):
    return nn.Sequential(nn.Linear(width, first), Dice(first), nn.Linear(first, second), Dice(second),
                         nn.Linear(second, 1))


def sigmoid_net(*widths):
    layers = []
    for i, o in zip(widths[:-2], widths[1:-1]):
        layers += [nn.Linear(i, o), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def attention_padded(net, q, keys, mask):
    """Softmax over time of MLP([q, k, q-k, q*k]); q (B, E), keys (T, B, E) -> (T, B)."""
    q = q.unsqueeze(0).expand_as(keys)
    score = net(torch.cat([q, keys, q - keys, q * keys], 2)).squeeze(2)
    return score.masked_fill(~mask, -1e9).softmax(0)


def attention_packed(net, q, keys, batch):
    """The same on packed rows (N, E) -> (N). The first layer is q(W1+W3) + k(W2-W3) + (q*k)W4."""
    first, w = net[0], net[0].weight.t()
    of_q = torch.addmm(first.bias, q, w[:E] + w[2 * E:3 * E])
    both = F.embedding(batch.sample, torch.cat([q, of_q], 1))
    hidden = torch.addmm(both[:, E:], keys, w[E:2 * E] - w[2 * E:3 * E])
    hidden = torch.addmm(hidden, both[:, :E] * keys, w[3 * E:])
    score = net[1:](hidden).squeeze(1)
    full = score.new_full((batch.mask.numel(),), -1e9).index_copy(0, batch.position, score)
    return full.view(batch.mask.shape).softmax(0).view(-1).index_select(0, batch.position)


# ---------------------------------------------------------------- models


class Dien(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru_x = nn.Linear(E, 3 * H)
        self.gru_h = nn.Linear(H, 3 * H)
        self.auxiliary = sigmoid_net(2 * E, 100, 50, 1)
        self.query = nn.Linear(E, H)
        self.prelu = nn.PReLU(H, 0.1)
        self.attention = sigmoid_net(4 * H, 80, 40, 1)
        self.augru_x = nn.Linear(H, 3 * H)
        self.augru_h = nn.Linear(H, 3 * H)
        self.head = head(3 * E + H)

    def verdict(self, q, total, state, label):
        return log_loss(self.head(torch.cat([q, total, q * total, state], 1)).squeeze(1), label)

    def padded(self, rows, batch):
        q, keys, negatives = rows
        states = self.builtin_gru(keys)
        auxiliary = self.auxiliary_padded(states, keys, negatives, batch.mask)
        a, gates = self.evolution_inputs(q, states, batch.mask)
        last = self.evolve(gates, self.augru_h.weight.t(), self.augru_h.bias, a)
        return self.verdict_padded(q, keys, batch.mask, last, batch.label) + auxiliary

    def auxiliary_padded(self, states, keys, negatives, mask):
        click = self.auxiliary(torch.cat([states[:-1], keys[1:]], 2)).squeeze(2)
        other = self.auxiliary(torch.cat([states[:-1], negatives[1:]], 2)).squeeze(2)
        return ((F.softplus(-click) + F.softplus(other)) * mask[1:]).sum() / mask[1:].sum()

    def evolution_inputs(self, q, states, mask):
        a = attention_padded(self.attention, self.prelu(self.query(q)), states, mask)
        return a.unsqueeze(2), self.augru_x(states)

    @staticmethod
    def evolve(gates, wh, bh, a):
        """The last state: an attention of 0 on padding leaves the state as it is."""
        return gru_chunk(gates, gates.new_zeros(gates.shape[1], H), wh, bh, a)[-1]

    def verdict_padded(self, q, keys, mask, last, label):
        return self.verdict(q, (keys * mask.unsqueeze(2)).sum(0), last, label)

    def compile(self):
        for part in ("auxiliary_padded", "evolution_inputs", "verdict_padded"):
            setattr(self, part, compiled(getattr(self, part)))
        self.evolve = functools.partial(gru_chunks, compiled(gru_chunk))
        return self.padded

    def packed(self, rows, batch, handwritten=False):
        q, keys, negatives = rows  # keys (N, E); negatives (N - B, E): none for the first step
        recurrence = self.recurrence_handwritten if handwritten else gru_packed
        states, _ = recurrence(self.gru_x(keys), self.gru_h.weight.t(), self.gru_h.bias, batch.sizes)
        auxiliary = self.auxiliary_packed(F.embedding(batch.before, states), keys[batch.sizes[0]:], negatives)
        a = attention_packed(self.attention, self.prelu(self.query(q)), states, batch).unsqueeze(1)
        evolved, last = recurrence(self.augru_x(states), self.augru_h.weight.t(), self.augru_h.bias, batch.sizes, a)
        if last is None:
            last = F.embedding(batch.last, evolved)
        total = torch.zeros_like(q).index_add(0, batch.sample, keys)
        return self.verdict(q, total, last, batch.label) + auxiliary

    def builtin_gru(self, keys):
        """What nn.GRU calls; the packed variants use the same parameters in their own way."""
        parameters = [self.gru_x.weight, self.gru_h.weight, self.gru_x.bias, self.gru_h.bias]
        start = keys.new_zeros(1, keys.shape[1], H)
        return torch.gru(keys, start, parameters, True, 1, 0.0, self.training, False, False)[0]

    @staticmethod
    def recurrence_handwritten(gates, wh, bh, sizes, a=None):
        return PackedGru.apply(gates, wh, bh, a, sizes), None

    def auxiliary_packed(self, states, clicks, others):
        first, w = self.auxiliary[0], self.auxiliary[0].weight.t()
        of_state = torch.addmm(first.bias, states, w[:E])
        hidden = torch.cat([torch.addmm(of_state, clicks, w[E:]), torch.addmm(of_state, others, w[E:])])
        click, other = self.auxiliary[1:](hidden).squeeze(1).chunk(2)
        return (F.softplus(-click) + F.softplus(other)).mean()


class Din(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = sigmoid_net(4 * E, 80, 40, 1)
        self.head = head(4 * E)

    def verdict(self, q, total, interest, label):
        return log_loss(self.head(torch.cat([q, total, q * total, interest], 1)).squeeze(1), label)

    def padded(self, rows, batch):
        q, keys = rows
        return self.loss_padded(q, keys, batch.mask, batch.label)

    def loss_padded(self, q, keys, mask, label):
        a = attention_padded(self.attention, q, keys, mask)
        interest = (a.unsqueeze(2) * keys).sum(0)
        return self.verdict(q, (keys * mask.unsqueeze(2)).sum(0), interest, label)

    def compile(self):
        self.loss_padded = compiled(self.loss_padded)
        return self.padded

    def packed(self, rows, batch, handwritten=False):
        q, keys = rows
        a = attention_packed(self.attention, q, keys, batch).unsqueeze(1)
        sums = q.new_zeros(len(q), 2 * E).index_add(0, batch.sample, torch.cat([keys, a * keys], 1))
        return self.verdict(q, sums[:, :E], sums[:, E:], batch.label)


class Lstm(nn.Module):
    """Embedding 64 -> LSTM 64 -> LSTM 64 -> Dense 1 on items alone; all histories of one length."""
    WIDTH = 64

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(self.WIDTH, self.WIDTH, num_layers=2)
        self.output = nn.Linear(self.WIDTH, 1)

    def padded(self, rows, batch):
        states, _ = self.lstm(rows[0])
        return log_loss(self.output(states[-1]).squeeze(1), batch.label)


MODELS = {"dien": Dien, "din": Din, "lstm": Lstm}
VARIANTS = {"dien": ("padded", "compiled", "expert", "handwritten"), "din": ("padded", "compiled", "expert"),
            "lstm": ("padded",)}
