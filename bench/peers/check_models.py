# SPDX-License-Identifier: Apache-2.0
"""The PyTorch forms of bench/models_vs_pytorch against the values that Meander's tests hold its models to.

tests/golden/data has parameters, a batch and logits of each model (tools/make_fixtures.py and
make_graph_fixtures.py); with these parameters, and these rows, a form must give these logits.
"""
import math
import os
import struct
import types

import numpy as np
import torch

import torch_graph_peer
import torch_history_models
from torch_models import head
from variants import GRAPHS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOLERANCE = 2e-5
HEADS = 2  # of the fixture of BST


def read(name):
    arrays, types_of = {}, {b"f": np.float32, b"d": np.float64, b"i": np.int32}
    with open(os.path.join(ROOT, f"tests/golden/data/{name}.bin"), "rb") as file:
        while length := file.read(1):
            key = file.read(length[0]).decode()
            code, axes = file.read(1), file.read(1)[0]
            shape = struct.unpack(f"<{axes}I", file.read(4 * axes))
            count = math.prod(shape)
            kind = np.dtype(types_of[code])
            arrays[key] = np.frombuffer(file.read(count * kind.itemsize), kind).reshape(shape).copy()
    return arrays


# ---------------------------------------------------------------- histories


def set_linear(layer, kernel, bias=None):
    layer.weight.copy_(torch.as_tensor(kernel.T))
    if bias is not None:
        layer.bias.copy_(torch.as_tensor(bias.ravel()))


def set_head(layers, param):
    """Scale and shift go into the first layer, the softmax's two columns into their difference."""
    get = lambda name: param["head/" + name]
    gamma, beta, kernel = get("scale/gamma") / np.sqrt(1.001), get("scale/beta"), get("dense1/kernel")
    set_linear(layers[0], gamma.T * kernel, get("dense1/bias") + beta @ kernel)
    set_linear(layers[2], get("dense2/kernel"), get("dense2/bias"))
    for at, name in ((1, "dice1"), (3, "dice2")):
        layers[at].alpha.copy_(torch.as_tensor(get(name + "/alpha").ravel()))
    kernel, bias = get("output/kernel"), get("output/bias")
    set_linear(layers[4], kernel[:, :1] - kernel[:, 1:], bias[:, :1] - bias[:, 1:])


def set_bst(net, param):
    net.positions.copy_(torch.as_tensor(param["positions/rows"][::-1].copy()))
    for layer, name in ((net.query, "attention/query"), (net.output, "attention/output"),
                        (net.dense1, "feed_forward/dense1"), (net.dense2, "feed_forward/dense2")):
        set_linear(layer, param[name + "/kernel"], param[name + "/bias"])
    for layer, name in ((net.keys, "attention/keys"), (net.values, "attention/values")):
        set_linear(layer, param[name])
    for norm, name in ((net.norm1, "attention/norm"), (net.norm2, "feed_forward/norm")):
        norm.weight.copy_(torch.as_tensor(param[name + "/gamma"].ravel()))
        norm.bias.copy_(torch.as_tensor(param[name + "/beta"].ravel()))
    net.prelu.weight.copy_(torch.as_tensor(param["feed_forward/prelu/alpha"].ravel()))


def set_caser(net, param):
    for conv, h in zip(net.horizontal, net.HEIGHTS):
        kernel = param[f"horizontal/height{h}/kernel"].reshape(h, -1, net.FILTERS)[::-1]  # oldest first there
        conv.weight.copy_(torch.as_tensor(kernel.transpose(2, 1, 0).copy()))
        conv.bias.copy_(torch.as_tensor(param[f"horizontal/height{h}/bias"].ravel()))
    net.vertical.weight.copy_(torch.as_tensor(param["vertical/kernel"]))
    set_linear(net.features, param["features/kernel"], param["features/bias"])


def batch_of(fixture):
    """(q, keys, batch): one sample for each candidate, newest behaviours first."""
    lengths, target = fixture["batch/0/lengths"], fixture["batch/0/target"]
    start, candidates = np.cumsum(lengths) - lengths, target.shape[2]
    length = np.repeat(lengths, candidates).astype(np.int64)
    start = np.repeat(start, candidates)
    steps = np.arange(max(length.max(), 4))[:, None]
    mask = steps < length
    at = np.where(mask, start + length - 1 - steps, 0)
    rows = [torch.from_numpy(np.concatenate([fixture[f"table/{t}"][ids[t]] for t in (0, 1)], -1))
            for ids in (target.reshape(2, -1), fixture["batch/0/history"][:, at])]
    batch = types.SimpleNamespace(mask=torch.from_numpy(mask), label=torch.zeros(len(length)), targets=len(length))
    torch_history_models.prepare(batch, mask, length)
    return *rows, batch


def apart_histories(model):
    fixture = read(model)
    q, keys, batch = batch_of(fixture)
    param = {name.removeprefix("param/"): value for name, value in fixture.items() if name.startswith("param/")}
    more = dict(heads=HEADS, positions=len(param["positions/rows"])) if model == "bst" else {}
    net = torch_history_models.MODELS[model](width=q.shape[1], **more)
    net.head = head(*[param[f"head/dense{i}/kernel"].shape[a] for i, a in ((1, 0), (1, 1), (2, 1))])
    with torch.no_grad():
        set_head(net.head, param)
        {"bst": set_bst, "caser": set_caser, "dnn": lambda net, param: None}[model](net, param)
        return max(np.abs(net.logits(q, keys, batch, way).numpy() - fixture["logits"].ravel()).max()
                   for way in ("padded", "expert"))


def apart_decay():
    """u <- u exp(-rate dt) + h along a history, over the same of ones."""
    rng = np.random.default_rng(1)
    keys, length = rng.standard_normal((9, 5, 6)), np.array([9, 4, 1, 7, 2])
    mask = np.arange(9)[:, None] < length
    batch = types.SimpleNamespace(mask=torch.from_numpy(mask), label=torch.zeros(5), targets=5)
    torch_history_models.prepare(batch, mask, length)
    net = torch_history_models.Decay(width=6, half_life_h=3)
    with torch.no_grad():
        net.log_rate.fill_(0.3)
        got = net.user(None, torch.from_numpy(keys).float(), batch, "padded")[0].numpy()
    worst, kept = 0, np.exp(-np.log(2) / 3 * np.exp(0.3) * 0.5)  # a behaviour in each half hour
    for b, n in enumerate(length):
        u, weight = np.zeros(6), 0
        for t in reversed(range(n)):
            u, weight = u * kept + keys[t, b], weight * kept + 1
        worst = max(worst, np.abs(u / weight - got[b]).max())
    return worst


# ---------------------------------------------------------------- graphs


def graph_of(fixture, nodes):
    node, of_class = fixture["target"][1, :, 0], fixture["target"][0, :, 0]
    every = np.zeros(nodes, np.int64)
    every[node] = of_class
    return types.SimpleNamespace(nodes=nodes, words=int(fixture["words"][1].max()) + 1, links=fixture.get("links"),
                                 has=fixture["words"].astype(np.int64), train=torch.from_numpy(node.astype(np.int64)),
                                 of_class=torch.from_numpy(every))


def apart_of(scores, fixture):
    """Of each target's class; a node may be there twice."""
    of_class = torch.from_numpy(fixture["target"][0, :, :1].astype(np.int64))
    return np.abs(scores.detach().gather(1, of_class).numpy() - fixture["logits"]).max()


def apart_gcn():
    fixture = read("gcn")
    nodes = int(max(fixture["links"].max(), fixture["words"][0].max())) + 1
    data, worst = graph_of(fixture, nodes), 0
    data.links = data.links.astype(np.int64)
    for variant in GRAPHS["gcn"]:
        net = torch_graph_peer.Gcn(variant, data)
        net.w0, net.w1 = (torch.nn.Parameter(torch.as_tensor(fixture[f"param/gcn/kernel{i}"])) for i in (0, 1))
        worst = max(worst, apart_of(net.scores(0.0), fixture))
    return worst


def apart_graphsage():
    fixture = read("graphsage")
    sizes = [int(n) for n in fixture["nodes"]]
    data = graph_of(fixture, sizes[-1])
    data.links = np.array([[0], [1]])  # what it draws is given
    hops = []
    for hop in range(2):
        rows, columns = fixture[f"hop/{hop}"].astype(np.int64)
        offsets = np.searchsorted(rows, np.arange(sizes[hop]))
        hops.append([torch.from_numpy(part) for part in (columns, fixture[f"hop/{hop}/share"], offsets)])
    worst, width = 0, fixture["table/1"].shape[1]
    for variant in GRAPHS["graphsage"]:
        net = torch_graph_peer.GraphSage(variant, data)
        with torch.no_grad():
            net.table = torch.nn.Parameter(torch.as_tensor(fixture["table/1"][:data.words]))
            net.bias0 = torch.nn.Parameter(torch.as_tensor(fixture["param/sage/bias0"].ravel()))
            kernel1 = torch.as_tensor(fixture["param/sage/kernel1"])
            assert kernel1.shape[0] == width
            net.kernel1, net.bias1 = torch.nn.Parameter(kernel1), torch.nn.Parameter(
                torch.as_tensor(fixture["param/sage/bias1"].ravel()))
            scores = net.scores(sizes, hops, net.described(np.arange(sizes[-1])), 0.0)[data.train]
        worst = max(worst, apart_of(scores, fixture))
    return worst


def apart_mf():
    """Each variant's first step against the plain one's loss and rows."""
    worst, reference = 0, None
    for variant in GRAPHS["mf"]:
        torch.manual_seed(1)
        net = torch_graph_peer.Mf(variant)
        loss = net.step()
        after = torch.cat([net.user.weight.detach(), net.item.weight.detach()])
        reference = reference or (loss, after)
        worst = max(worst, abs(loss - reference[0]), (after - reference[1]).abs().max().item())
    return worst


def check(models):
    good = True
    for model in models:
        apart = apart_histories(model) if model in ("dnn", "bst", "caser") else globals()["apart_" + model]()
        good &= apart < TOLERANCE
        print(f"{model}: apart {apart:.1e}: {'agrees' if apart < TOLERANCE else 'DISAGREES'}", flush=True)
    return 0 if good else 1
