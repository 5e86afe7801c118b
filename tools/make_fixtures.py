#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/data/<model>.bin: what PyTorch, in float64, makes of small models.

    python tools/make_fixtures.py [folder]

The models are written here a second time, plainly, from their formulas: one sample after another,
no packing, no sharing of histories, gradients by autograd. tests/golden/models compares.

A file holds named arrays, one after another until the end of the file, little endian:

    u8 length of the name, the name; u8 type: 'f' float32, 'd' float64, 'i' int32;
    u8 number of dimensions; u32 each dimension; the values, row-major

    widths (slots) i              width of the rows of each table (item, category)
    table/<t> (keys, width) f     rows before the first step
    param/<name> (rows, cols) f   dense parameters before the first step
    batch/<b>/...                 ten batches of G histories with K candidates each:
      lengths (G) i               in no order
      history (2, sum of lengths) i   row of each behaviour in each table, oldest first
      negative (2, sum of lengths) i, valid (sum of lengths) f   for the auxiliary loss
      target (2, G, K) i, label (G, K) f
      second (G, K) f           of *_second: the second label, NaN where it is not known
    second_logits (G, K) d        of *_second, as logits
    logits (G, K) d, loss () d, dtable/<t> d, dparam/<name> d   of batch 0, before the first step
    losses (10) d                 of ten steps, batch 0 to 9: Adam (rate 1e-3, 0.9, 0.999, 1e-8) on
                                  the parameters; on the rows lazy Adam: a row moves only when it is
                                  in the batch, bias is corrected by the number of the step
"""

import struct
import sys
from pathlib import Path

import numpy as np
import torch

BATCHES = 10
GROUPS = 7
LENGTH_MAX = 6
KEYS = (40, 9)  # items, categories
HIDDEN = 8
ATTENTION = (12, 6)
HEAD = (16, 8)
HEADS = 2


class Params(dict):
    """Dense parameters, made on first use: normal around the value where they start in training."""

    def __init__(self, rng):
        super().__init__()
        self.rng = rng

    def get(self, name, rows, cols, around=0.0):
        if name not in self:
            spread = 0.2 if rows == 1 else 1.0 / np.sqrt(rows)
            value = around + spread * self.rng.standard_normal((rows, cols))
            self[name] = torch.tensor(value.astype(np.float32).astype(np.float64), requires_grad=True)
        return self[name]


def dense(params, name, x, units):
    kernel = params.get(name + "/kernel", x.shape[-1], units)
    return x @ kernel + params.get(name + "/bias", 1, units)[0]


def scale(params, name, x):
    gamma = params.get(name + "/gamma", 1, x.shape[-1], around=1.0)[0]
    return gamma * x / np.sqrt(1.001) + params.get(name + "/beta", 1, x.shape[-1])[0]


def dice(params, name, x):
    alpha = params.get(name + "/alpha", 1, x.shape[-1])[0]
    mean = x.mean(0)
    deviation = torch.sqrt(((x - mean) ** 2 + 1e-9).mean(0))
    p = torch.sigmoid((x - mean) / (deviation + 1e-9))
    return p * x + (1 - p) * alpha * x


def tower(params, name, x, columns):
    x = scale(params, name + "/scale", x)
    for i, units in enumerate(HEAD, 1):
        x = dice(params, f"{name}/dice{i}", dense(params, f"{name}/dense{i}", x, units))
    return dense(params, name + "/output", x, columns)


def head(params, x):
    """(B, w) -> log of the softmax over (clicked, not clicked)."""
    return torch.log_softmax(tower(params, "head", x, 2), 1)


CLICK_WEIGHT, SECOND_WEIGHT = 0.75, 0.5


def second_task(params, x, labels):
    """(loss over the samples whose label is known, logits)"""
    logits = tower(params, "second", x, 1)[:, 0]
    known = ~torch.isnan(labels)
    return (torch.nn.functional.binary_cross_entropy_with_logits(logits[known], labels[known]),
            logits)


def lstm(params, name, inputs):
    """The states after each input: gates i, j, f, o, forget bias + 1."""
    h = c = torch.zeros(HIDDEN, dtype=torch.float64)
    states = []
    for x in inputs:
        i, j, f, o = dense(params, name, torch.cat([x, h]), 4 * HIDDEN).chunk(4)
        c = c * torch.sigmoid(f + 1) + torch.sigmoid(i) * torch.tanh(j)
        h = torch.tanh(c) * torch.sigmoid(o)
        states.append(h)
    return states


def gru(params, name, inputs, attention=None, evolution="augru"):
    """The states after each input; with attention, as in AUGRU, AGRU or AIGRU."""
    h = torch.zeros(HIDDEN, dtype=torch.float64)
    states = []
    for t, x in enumerate(inputs):
        x = attention[t] * x if evolution == "aigru" else x
        kernel = params.get(name + "/gates/kernel", len(x) + HIDDEN, 2 * HIDDEN)
        bias = params.get(name + "/gates/bias", 1, 2 * HIDDEN, around=1.0)[0]
        r, z = torch.sigmoid(torch.cat([x, h]) @ kernel + bias).chunk(2)
        c = torch.tanh(dense(params, name + "/candidate", torch.cat([x, r * h]), HIDDEN))
        if evolution == "agru":
            z = 1 - attention[t] + 0 * z
        elif evolution == "augru" and attention is not None:
            z = (1 - attention[t]) * z
        h = z * h + (1 - z) * c
        states.append(h)
    return states


def attention(params, query, keys):
    """Softmax over the keys."""
    scores = []
    for key in keys:
        x = torch.cat([query, key, query - key, query * key])
        for i, units in enumerate(ATTENTION, 1):
            x = torch.sigmoid(dense(params, f"attention/dense{i}", x, units))
        scores.append(dense(params, "attention/dense3", x, 1)[0])
    return torch.softmax(torch.stack(scores), 0)


def layer_norm(params, name, x, epsilon):
    """Of the last axis."""
    gamma = params.get(name + "/gamma", 1, x.shape[-1], around=1.0)[0]
    beta = params.get(name + "/beta", 1, x.shape[-1])[0]
    variance = x.var(-1, unbiased=False, keepdim=True)
    return gamma * (x - x.mean(-1, keepdim=True)) / torch.sqrt(variance + epsilon) + beta


def positions(params, name, x):
    """The rows of the last len(x) positions."""
    return params.get(name + "/rows", LENGTH_MAX, x.shape[-1])[LENGTH_MAX - len(x):]


def dot_attention(query, keys, values, hidden):
    """Rows of heads beside each other; `hidden` (queries, keys) is what a query does not see."""
    seen = []
    for q, k, v in zip(*(x.chunk(HEADS, -1) for x in (query, keys, values))):
        score = (q @ k.T / np.sqrt(q.shape[-1])).masked_fill(hidden, -torch.inf)
        seen.append(torch.softmax(score, -1) @ v)
    return torch.cat(seen, -1)


def transformer(params, name, history):
    """SASRec's encoder: the states after each behaviour."""
    x = torch.stack(history)
    width = x.shape[-1]
    x = np.sqrt(width) * x + positions(params, name + "/positions", x)
    future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    for block in (f"{name}/block{b}" for b in (1, 2)):
        q = layer_norm(params, block + "/attention/norm", x, 1e-8)
        query = dense(params, block + "/attention/query", q, width)
        keys, values = dense(params, block + "/attention/keys_values", x, 2 * width).chunk(2, -1)
        z = layer_norm(params, block + "/feed_forward/norm",
                       q + dot_attention(query, keys, values, future), 1e-8)
        inner = torch.relu(dense(params, block + "/feed_forward/dense1", z, width))
        x = z + dense(params, block + "/feed_forward/dense2", inner, width)
    return layer_norm(params, name + "/norm", x, 1e-8)


def sasrec(params, table, batch):
    """(sum of the losses of all positions / their number, logits)."""
    item = lambda row: table(torch.tensor([int(row)]))[0]
    terms, logits = [], []
    for g, length in enumerate(batch.lengths):
        span = slice(batch.start[g], batch.start[g] + length)
        history = [item(row) for row in batch.history[0, span]]
        states = transformer(params, "encoder", history)
        candidates = [item(row) for row in batch.target[0, g]]
        logits += [states[-1] @ candidate for candidate in candidates]
        pairs = [(states[t - 1], history[t], item(batch.negative[0, span][t]))
                 for t in range(1, length) if batch.valid[span][t]]
        for state, positive, negative in pairs + [(states[-1], *candidates)]:
            terms.append(-torch.nn.functional.logsigmoid(state @ positive)
                         - torch.nn.functional.logsigmoid(-state @ negative))
    return torch.stack(terms).mean(), torch.stack(logits)


def bst(params, q, history):
    """What the target's position gives, with the target as the last behaviour."""
    width = len(q)
    x = torch.stack(history)
    x = torch.cat([x + positions(params, "positions", x), q[None]])
    kernel = lambda name: params.get("attention/" + name, width, width)
    query = dense(params, "attention/query", q[None], width)
    seen = dot_attention(query, x @ kernel("keys"), x @ kernel("values"), torch.tensor(False))
    y = layer_norm(params, "attention/norm", q + dense(params, "attention/output", seen[0], width),
                   1e-5)
    inner = dense(params, "feed_forward/dense1", y, 4 * width)
    alpha = params.get("feed_forward/prelu/alpha", 1, 4 * width, around=0.1)[0]
    inner = torch.where(inner > 0, inner, alpha * inner)
    return layer_norm(params, "feed_forward/norm",
                      y + dense(params, "feed_forward/dense2", inner, width), 1e-5)


def auxiliary_net(params, state, behaviour):
    """Log of the softmax: (is the next behaviour, is not)."""
    x = scale(params, "auxiliary/scale", torch.cat([state, behaviour]))
    for i, units in enumerate((100, 50), 1):
        x = torch.sigmoid(dense(params, f"auxiliary/dense{i}", x, units))
    return torch.log_softmax(dense(params, "auxiliary/dense3", x, 2), 0)


def auxiliary_term(params, states, history, negatives, valid):
    total = torch.zeros((), dtype=torch.float64)
    for t in range(1, len(history)):
        if valid[t]:
            total = total - auxiliary_net(params, states[t - 1], history[t])[0]
            total = total - auxiliary_net(params, states[t - 1], negatives[t])[1]
    return total


def pair_loss(log_p, labels):
    """Minus the mean over the B x 2 matrix."""
    return -(torch.stack([labels, 1 - labels], 1) * log_p).mean(), log_p[:, 0] - log_p[:, 1]


def next_item(kind, params, tables, states, history, negatives, targets):
    """(sum of the losses over positions, positions, logits): each state predicts what follows."""
    width = tables[0].weight.shape[1]
    states = [dense(params, "output", s, width) for s in states]
    following = [rows[:width] for rows in history[1:]] + [targets[0][:width]]
    total, count = torch.zeros((), dtype=torch.float64), 0
    for t, (state, item) in enumerate(zip(states, following)):
        if kind == "next":
            scores = tables[0](torch.arange(KEYS[0])) @ state
            total = total + torch.logsumexp(scores, 0) - state @ item
        else:
            negative = negatives[t + 1] if t + 1 < len(states) else targets[1]
            if negative is None:
                continue
            total = total - torch.nn.functional.logsigmoid(state @ item)
            total = total - torch.nn.functional.logsigmoid(-(state @ negative[:width]))
        count += 1
    return total, count, [states[-1] @ q[:width] for q in targets]


CASER_FILTERS, CASER_NEWEST, CASER_VERTICAL = 16, 20, 4


def caser(params, history):
    """What stands for the user: horizontal filters at their largest, and weighted sums."""
    width = len(history[0])
    features = []
    for height in (2, 3, 4):
        padded = [torch.zeros(width, dtype=torch.float64)] * max(0, height - len(history)) + history
        kernel = params.get(f"horizontal/height{height}/kernel", height * width, CASER_FILTERS)
        bias = params.get(f"horizontal/height{height}/bias", 1, CASER_FILTERS)[0]
        windows = [torch.relu(torch.cat(padded[t:t + height]) @ kernel + bias)
                   for t in range(len(padded) - height + 1)]
        features.append(torch.stack(windows).max(0).values)
    kernel = params.get("vertical/kernel", CASER_VERTICAL, CASER_NEWEST)
    newest = history[::-1][:CASER_NEWEST]
    for v in range(CASER_VERTICAL):
        features.append(sum(kernel[v, age] * x for age, x in enumerate(newest)))
    return torch.relu(dense(params, "features", torch.cat(features), width))


class Batch:
    """Histories as lists of rows; embed() looks them up, and only what a model really reads."""

    def __init__(self, rng, candidates, has_second=False):
        self.lengths = rng.integers(1, LENGTH_MAX + 1, GROUPS)
        self.lengths[0], self.lengths[1] = 1, LENGTH_MAX
        rng.shuffle(self.lengths)
        total = int(self.lengths.sum())
        category = rng.integers(0, KEYS[1], KEYS[0])
        draw = lambda *shape: (lambda item: np.stack([item, category[item]]))(
            rng.integers(0, KEYS[0], shape))
        self.history, self.negative, self.target = (
            draw(total), draw(total), draw(GROUPS, candidates))
        self.start = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.valid = (rng.random(total) < 0.9).astype(np.float32)
        self.valid[self.start] = 0  # the first behaviour has no state before it
        self.label = np.zeros((GROUPS, candidates), np.float32)
        self.label[:, 0] = 1
        if has_second:  # of the first candidates, most of them
            self.second = np.full((GROUPS, candidates), np.nan, np.float32)
            self.second[:, 0] = rng.integers(0, 2, GROUPS)
            self.second[rng.random(GROUPS) < 0.3, 0] = np.nan
            self.second[0, 0], self.second[1, 0] = 0, 1

    def arrays(self):
        return {name: getattr(self, name)
                for name in ("lengths", "history", "negative", "valid", "target", "label", "second")
                if hasattr(self, name)}


def embed(tables, rows):
    """rows: (2,) -> the item's and the category's row beside each other."""
    return torch.cat([table(torch.tensor([int(row)]))[0] for table, row in zip(tables, rows)])


def forward(kind, params, tables, batch):
    """(loss, logits) of a batch; of a second task, the logits behind each other."""
    has_second = kind.endswith("_second")
    kind, _, evolution = kind.removesuffix("_second").partition("_")
    if kind == "sasrec":
        return sasrec(params, tables[0], batch)
    inputs, auxiliary = [], torch.zeros((), dtype=torch.float64)
    next_logits, next_count = [], 0
    for g, length in enumerate(batch.lengths):
        span = slice(batch.start[g], batch.start[g] + length)
        history = [embed(tables, rows) for rows in batch.history[:, span].T]
        total = sum(history)
        states = gru(params, "gru1", history) if kind in ("dien", "next") else None
        if kind == "next_bce":
            states = lstm(params, "lstm1", history)
        if kind in ("dien", "next_bce"):
            negatives = [embed(tables, rows) if ok else None
                         for rows, ok in zip(batch.negative[:, span].T, batch.valid[span])]
        if kind.startswith("next"):
            targets = [embed(tables, rows) for rows in batch.target[:, g].T]
            total, count, logits = next_item(kind, params, tables, states, history,
                                             negatives if kind == "next_bce" else None, targets)
            auxiliary, next_count = auxiliary + total, next_count + count
            next_logits += logits
            continue
        if kind == "dien":
            auxiliary = auxiliary + auxiliary_term(params, states, history, negatives,
                                                   batch.valid[span])
        for k in range(batch.target.shape[2]):
            q = embed(tables, batch.target[:, g, k])
            if kind == "dnn":
                inputs.append(torch.cat([q, total / length, q * total / length]))
            elif kind == "caser":
                user = caser(params, history)
                inputs.append(torch.cat([q, user, q * user]))
            elif kind == "lstm":
                inputs.append(torch.cat([q, lstm(params, "lstm1", history)[-1]]))
            elif kind == "lstm2":
                first = lstm(params, "lstm1", history + [q])
                inputs.append(lstm(params, "lstm2", first)[-1])
            elif kind == "din":
                weights = attention(params, q, history)
                interest = sum(w * h for w, h in zip(weights, history))
                inputs.append(torch.cat([q, total, q * total, interest]))
            elif kind == "bst":
                mean = total / length
                inputs.append(torch.cat([q, mean, q * mean, bst(params, q, history)]))
            elif kind == "dien":
                query = dense(params, "query", q, HIDDEN)
                alpha = params.get("query/prelu/alpha", 1, HIDDEN, around=0.1)[0]
                query = torch.where(query > 0, query, alpha * query)
                weights = attention(params, query, states)
                interest = gru(params, evolution or "augru", states, weights, evolution or "augru")[-1]
                inputs.append(torch.cat([q, total, q * total, interest]))
    if kind.startswith("next"):
        return auxiliary / next_count, torch.stack(next_logits)
    x = torch.stack(inputs)
    labels = torch.tensor(batch.label.reshape(-1), dtype=torch.float64)
    if kind == "lstm2":
        logits = dense(params, "output", x, 1)[:, 0]
        p = torch.sigmoid(logits)
        return -(labels * p.log() + (1 - labels) * (1 - p).log()).mean(), logits
    loss, logits = pair_loss(head(params, x), labels)
    if has_second:
        labels = torch.tensor(batch.second.reshape(-1), dtype=torch.float64)
        second, second_logits = second_task(params, x, labels)
        loss = CLICK_WEIGHT * loss + SECOND_WEIGHT * second
        logits = torch.cat([logits, second_logits])
    return loss + auxiliary / (GROUPS * max(1, int(batch.lengths.max()) - 1)), logits


def train(params, tables, kind, batches):
    """The losses of one step on each batch."""
    adam = torch.optim.Adam(params.values(), lr=1e-3)
    lazy = torch.optim.SparseAdam([table.weight for table in tables], lr=1e-3)
    losses = []
    for batch in batches:
        adam.zero_grad()
        lazy.zero_grad()
        loss, _ = forward(kind, params, tables, batch)
        loss.backward()
        losses.append(loss.item())
        adam.step()
        lazy.step()
    return losses


def fixture(kind, widths, candidates, seed):
    rng = np.random.default_rng(seed)
    params = Params(rng)
    rows = [(0.5 * rng.standard_normal((n, w))).astype(np.float32) for n, w in zip(KEYS, widths)]
    tables = [torch.nn.Embedding.from_pretrained(torch.tensor(r, dtype=torch.float64), freeze=False,
                                                 sparse=True) for r in rows]
    has_second = kind.endswith("_second")
    batches = [Batch(rng, candidates, has_second) for _ in range(BATCHES)]
    loss, logits = forward(kind, params, tables, batches[0])
    loss.backward()

    out = {"widths": np.array(widths)}
    out |= {f"table/{t}": r for t, r in enumerate(rows)}
    out |= {f"param/{name}": p.detach().numpy().astype(np.float32) for name, p in params.items()}
    for b, batch in enumerate(batches):
        out |= {f"batch/{b}/{name}": value for name, value in batch.arrays().items()}
    logits = logits.detach().numpy().reshape(-1, GROUPS, candidates)
    out["logits"] = logits[0]
    if has_second:
        out["second_logits"] = logits[1]
    out["loss"] = np.array(loss.item())
    # A table that the model does not read has no gradient.
    gradients = [e.weight.grad.to_dense() if e.weight.grad is not None else torch.zeros_like(e.weight)
                 for e in tables]
    out |= {f"dtable/{t}": gradient.detach().numpy() for t, gradient in enumerate(gradients)}
    out |= {f"dparam/{name}": p.grad.numpy() for name, p in params.items()}
    out["losses"] = np.array(train(params, tables, kind, batches))
    return out


def write(path, arrays):
    with open(path, "wb") as file:
        for name, value in arrays.items():
            value = np.asarray(value)
            if value.dtype.kind == "i":
                value = value.astype(np.int32)
            code = {"float32": b"f", "float64": b"d", "int32": b"i"}[value.dtype.name]
            file.write(struct.pack("<B", len(name)) + name.encode() + code)
            file.write(struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape))
            file.write(np.ascontiguousarray(value).tobytes())


def main():
    root = Path(__file__).resolve().parent.parent
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/golden/data"
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (kind, widths, candidates) in enumerate([
            ("dnn", (6, 4), 2), ("lstm", (6, 4), 2), ("lstm2", (6, 4), 2), ("din", (6, 4), 3),
            ("dien", (5, 4), 2), ("sasrec", (6, 4), 2), ("bst", (6, 4), 3), ("next", (6, 4), 2),
            ("next_bce", (6, 4), 2), ("caser", (6, 4), 2), ("dien_agru", (5, 4), 2),
            ("dien_aigru", (5, 4), 3), ("din_second", (6, 4), 2), ("dien_second", (5, 4), 3)]):
        write(folder / f"{kind}.bin", fixture(kind, widths, candidates, seed))


if __name__ == "__main__":
    main()
