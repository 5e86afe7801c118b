// SPDX-License-Identifier: Apache-2.0
// A graph convolutional network that tells the classes of nodes, in this project's words: a node is
// a user, its class an item. The rows of both tables only name them.
// Source: Kipf and Welling, ICLR 2017 (arXiv:1609.02907), in the form of tkipf/gcn.
#include "nn/ops/gcn.h"
#include "models/blocks.h"
#include "models/model.h"

namespace meander::models {

nn::Graph build_gcn(const ModelSpec& spec) {
  constexpr float kDecay = 5e-4f;  // of the first layer, as published
  nn::Graph graph(spec.slots, spec.numeric_features);
  const nn::TensorId scores = nn::gcn(
      graph, "gcn", spec.adjacency, spec.features, slots_of(spec, false)[0],
      {.hidden = spec.hidden, .classes = spec.classes, .dropout = spec.dropout, .decay = kDecay});
  const nn::ClassHead out = nn::class_head(graph, "class", scores, slots_of(spec, true)[0]);
  graph.set_logits(out.logits);
  graph.set_ranks(out.ranks);
  return graph;
}

}  // namespace meander::models
