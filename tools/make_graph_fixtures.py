#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/data/{lightgcn,gcn,graphsage}.bin: what PyTorch, in float64, makes of small graphs.

    python tools/make_graph_fixtures.py [folder]

The models are written here a second time from their formulas, with whole matrices and gradients by
autograd. tests/golden/models/graph_test.cc compares. Format of a file: tools/make_fixtures.py.

    lightgcn   edges (2, E) i           user and item of each edge, which weighs 1
               table/0, table/1 (n, d) f  rows of items and of users, by id
               target (2, G, K) i       items and users; the first candidate is the positive
               logits (G, K) d, loss () d, dtable/0, dtable/1 d
    gcn        links (2, E) i           pairs of nodes, each once
               words (2, W) i           node and word
               param/gcn/kernel0, param/gcn/kernel1 f
               target (2, G, 1) i       classes and nodes
               logits (G, 1) d          of the node's class
               loss () d, dparam/gcn/kernel0, dparam/gcn/kernel1 d
    graphsage  nodes (hops + 1) i       how many are at most so many hops away
               hop/0, hop/1 (2, E) i    node and neighbour; hop/0/share, hop/1/share (E) f
               words (2, W) i           node and word; a node is x, the share of each of its words
               table/1 (words, 2 H) f   W of the first layer: what a word weighs, and what one of a
                                        neighbour's
               param/sage/... f
               target (2, G, 1) i       classes and nodes
               logits (G, 1) d, loss () d, dtable/1 d, dparam/sage/... d
"""

import sys
from pathlib import Path

import numpy as np
import torch

from make_fixtures import write


def values(rng, rows, cols):
    x = (0.5 * rng.standard_normal((rows, cols))).astype(np.float32)
    return x, torch.tensor(x.astype(np.float64), requires_grad=True)


def normalised(a):
    degree = a.sum(1)
    root = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1e-300)), 0)
    return torch.tensor(root[:, None] * a * root[None, :])


def lightgcn(rng, layers=3, users=11, items=13, width=6, histories=9, decay=1e-4):
    edges = np.array([(u, i) for u in range(users) for i in range(items) if rng.random() < 0.3]).T
    item_rows, item_table = values(rng, items, width)
    user_rows, user_table = values(rng, users, width)
    target = np.stack([rng.integers(0, items, (histories, 2)),
                       np.repeat(rng.integers(0, users, (histories, 1)), 2, 1)])
    a = np.zeros((users + items, users + items))
    a[edges[0], users + edges[1]] = a[users + edges[1], edges[0]] = 1
    a = normalised(a)
    all_layers = [torch.cat([user_table, item_table])]
    for _ in range(layers):
        all_layers.append(a @ all_layers[-1])
    mean = torch.stack(all_layers).mean(0)
    item, user = torch.tensor(target[0]), torch.tensor(target[1])
    logits = (mean[user] * mean[users + item]).sum(-1)
    norms = user_table[user[:, 0]].pow(2).sum() + item_table[item].pow(2).sum()
    loss = torch.nn.functional.softplus(logits[:, 1] - logits[:, 0]).mean() + decay / 2 * norms / histories
    loss.backward()
    return {"layers": np.array([layers]), "edges": edges, "table/0": item_rows, "table/1": user_rows, "target": target,
            "logits": logits.detach().numpy(), "loss": np.float64(loss.item()),
            "dtable/0": item_table.grad.numpy(), "dtable/1": user_table.grad.numpy()}


def gcn(rng, nodes=12, words=9, hidden=5, classes=4, histories=7, decay=5e-4):
    links = np.array([(a, b) for a in range(nodes) for b in range(a) if rng.random() < 0.25]).T
    has = np.array([(n, w) for n in range(nodes) for w in range(words) if rng.random() < 0.4]).T
    w0_values, w0 = values(rng, words, hidden)
    w1_values, w1 = values(rng, hidden, classes)
    node, of_class = rng.permutation(nodes)[:histories], rng.integers(0, classes, histories)
    a = np.eye(nodes)
    a[links[0], links[1]] = a[links[1], links[0]] = 1
    a = normalised(a)
    x = np.zeros((nodes, words))
    x[has[0], has[1]] = 1
    x = torch.tensor(x / np.maximum(x.sum(1, keepdims=True), 1))
    scores = (a @ torch.relu(a @ x @ w0) @ w1)[torch.tensor(node)]
    of_class_tensor = torch.tensor(of_class)
    loss = torch.nn.functional.cross_entropy(scores, of_class_tensor) + decay / 2 * w0.pow(2).sum()
    loss.backward()
    return {"links": links, "words": has, "param/gcn/kernel0": w0_values, "param/gcn/kernel1": w1_values,
            "target": np.stack([of_class, node])[:, :, None],
            "logits": scores.detach().gather(1, of_class_tensor[:, None]).numpy(), "loss": np.float64(loss.item()),
            "dparam/gcn/kernel0": w0.grad.numpy(), "dparam/gcn/kernel1": w1.grad.numpy()}


def graphsage(rng, nodes=(5, 9, 14), words=9, hidden=6, classes=4, histories=7):
    has = np.array([(n, w) for n in range(nodes[2]) for w in range(words) if rng.random() < 0.4]).T
    x = np.zeros((nodes[2], words))
    x[has[0], has[1]] = 1
    x = torch.tensor(x / np.maximum(x.sum(1, keepdims=True), 1))
    rows, table = values(rng, words, 2 * hidden)
    shapes = {"bias0": (1, hidden), "kernel1": (2 * hidden, classes), "bias1": (1, classes)}
    given, param = {}, {}
    for name, shape in shapes.items():
        given["param/sage/" + name], param[name] = values(rng, *shape)
    out, hops = {}, []
    for hop in range(2):
        share = np.where(rng.random((nodes[hop], nodes[hop + 1])) < 0.3, rng.random((nodes[hop], nodes[hop + 1])), 0)
        share = (share / np.maximum(share.sum(1, keepdims=True), 1e-9)).astype(np.float32)
        out[f"hop/{hop}"] = np.array(np.nonzero(share))
        out[f"hop/{hop}/share"] = share[np.nonzero(share)]
        hops.append(torch.tensor(share.astype(np.float64)))
    both = torch.cat([x[:nodes[1]], hops[1] @ x], 1)
    h = torch.relu(both @ torch.cat([table[:, :hidden], table[:, hidden:]]) + param["bias0"])
    h = torch.cat([h[:nodes[0]], hops[0] @ h], 1) @ param["kernel1"] + param["bias1"]
    node, of_class = rng.integers(0, nodes[0], histories), rng.integers(0, classes, histories)
    scores, of_class_tensor = h[torch.tensor(node)], torch.tensor(of_class)
    loss = torch.nn.functional.cross_entropy(scores, of_class_tensor)
    loss.backward()
    return {**out, **given, "nodes": np.array(nodes), "words": has, "table/1": rows,
            "target": np.stack([of_class, node])[:, :, None],
            "logits": scores.detach().gather(1, of_class_tensor[:, None]).numpy(), "loss": np.float64(loss.item()),
            "dtable/1": table.grad.numpy(),
            **{"dparam/sage/" + name: p.grad.numpy() for name, p in param.items()}}


def main():
    root = Path(__file__).resolve().parent.parent
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/golden/data"
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "lightgcn.bin", lightgcn(np.random.default_rng(1)))
    write(folder / "gcn.bin", gcn(np.random.default_rng(2)))
    write(folder / "graphsage.bin", graphsage(np.random.default_rng(3)))


if __name__ == "__main__":
    main()
