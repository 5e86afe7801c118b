#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The step that bench_light_gcn measures, in PyTorch: the whole graph by torch.sparse.mm, as in
LightGCN-PyTorch (coo), or with a CSR matrix, PyTorch's best form (csr). Prints JSON.

    python bench/light_gcn_torch.py FILE [layers] [threads] [batch] [width] [repeats] [coo|csr]
"""
import json
import sys
import time

import numpy as np
import torch


def read_edges(path):
    users, items = [], []
    with open(path) as file:
        for line in file:
            words = [int(word) for word in line.split()]
            users += words[:1] * (len(words) - 1)
            items += words[1:]
    return np.array(users), np.array(items)


def main():
    path, rest = sys.argv[1], sys.argv[2:]
    number = lambda i, otherwise: int(rest[i]) if len(rest) > i else otherwise
    layers, threads, batch = number(0, 3), number(1, 2), number(2, 2048)
    width, repeats = number(3, 64), number(4, 9)
    form = rest[5] if len(rest) > 5 else "coo"
    torch.set_num_threads(threads)
    rng = np.random.default_rng(1)
    users, items = read_edges(path)
    user_count, item_count = users.max() + 1, items.max() + 1
    value = 1 / np.sqrt(np.bincount(users)[users] * np.bincount(items)[items])
    place = np.concatenate([np.stack([users, items + user_count]), np.stack([items + user_count, users])], 1)
    nodes = user_count + item_count
    adjacency = torch.sparse_coo_tensor(place, np.concatenate([value, value]).astype(np.float32), (nodes, nodes)).coalesce()
    if form == "csr":
        adjacency = adjacency.to_sparse_csr()
    table = torch.nn.Parameter(torch.tensor(rng.normal(0, 0.1, (nodes, width)).astype(np.float32)))
    adam = torch.optim.Adam([table], lr=1e-3)

    def step(user, positive, negative):
        x, layer = [table], table
        for _ in range(layers):
            layer = torch.sparse.mm(adjacency, layer) if form == "coo" else adjacency @ layer
            x.append(layer)
        mean = torch.stack(x, 1).mean(1)
        u, p, n = mean[user], mean[positive], mean[negative]
        loss = torch.nn.functional.softplus((u * n).sum(1) - (u * p).sum(1)).mean()
        norm = sum(table[rows].norm(2).pow(2) for rows in (user, positive, negative))
        (loss + 1e-4 * 0.5 * norm / batch).backward()

    ms, adam_ms = [], []
    for r in range(repeats + 1):
        edge = rng.integers(0, len(users), batch)
        columns = users[edge], items[edge] + user_count, rng.integers(0, item_count, batch) + user_count
        columns = [torch.from_numpy(np.ascontiguousarray(c)) for c in columns]
        adam.zero_grad()
        begin = time.perf_counter()
        step(*columns)
        middle = time.perf_counter()
        adam.step()
        if r > 0:
            ms.append((middle - begin) * 1e3)
            adam_ms.append((time.perf_counter() - middle) * 1e3)
    median, steps = sorted(ms)[repeats // 2], -(-len(users) // batch)
    print(json.dumps({"form": form, "edges": len(users), "layers": layers, "threads": threads, "batch": batch,
                      "width": width, "step_ms": round(median, 2), "step_ms_min": round(min(ms), 2),
                      "adam_ms": round(sorted(adam_ms)[repeats // 2], 2),
                      "pass_s": round(median * steps * 1e-3, 2)}))


if __name__ == "__main__":
    main()
