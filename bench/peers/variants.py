# SPDX-License-Identifier: Apache-2.0
"""Which forms there are of the models of torch_history_models and torch_graph_peer; needs no torch."""
HISTORIES = {"dnn": ("padded", "bag"), "decay": ("padded", "bag"), "bst": ("padded", "expert"),
             "caser": ("padded", "expert")}
GRAPHS = {"mf": ("sparse", "dense", "shared", "own"), "gcn": ("coo", "csr", "dense", "own"),
          "graphsage": ("bag", "dense")}
