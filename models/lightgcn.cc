// SPDX-License-Identifier: Apache-2.0
// LightGCN: users and items are the nodes of a graph of who took what, and a node's vector is the
// mean of what its neighbours of the first, second, ... order have, without weights.
// Source: He et al., SIGIR 2020 (arXiv:2002.02126), in the form of gusye1234/LightGCN-PyTorch.
#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/light_gcn.h"

namespace meander::models {

nn::Graph build_lightgcn(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const nn::LightGcn out =
      nn::light_gcn(graph, "propagation", spec.adjacency, slots_of(spec, false)[0],
                    slots_of(spec, true)[0], {.layers = spec.layers});
  graph.set_logits(out.logits);
  graph.set_ranks(out.ranks);
  nn::bpr_loss(graph, "loss", out.logits);
  return graph;
}

}  // namespace meander::models
