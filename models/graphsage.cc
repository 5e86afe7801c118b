// SPDX-License-Identifier: Apache-2.0
// GraphSAGE: a node is made of its own row and of those of a few neighbours that are drawn for each
// batch, so that a step pulls the rows of what it draws and no table has to fit anywhere. Of nodes
// with classes it tells the class; of users and items, linked by how strong an interest is, it says
// whether a user takes an item, from both and their product.
// Source: Hamilton, Ying and Leskovec, NeurIPS 2017 (arXiv:1706.02216).
#include "nn/ops/sage.h"

#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/broadcast.h"
#include "nn/ops/gcn.h"
#include "nn/ops/product.h"

namespace meander::models {

nn::Graph build_graphsage(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const bool has_items = spec.classes == 0;
  nn::SageOptions options{.layers = static_cast<std::int32_t>(spec.fanout.size()),
                          .hidden = spec.hidden,
                          .out = has_items ? spec.hidden : spec.classes,
                          .dropout = spec.dropout,
                          .rows_are_weights = !has_items};
  const nn::Sage sage = nn::sage(graph, "sage", spec.slots.back().width, has_items, options);
  if (has_items) {
    const nn::TensorId user = nn::broadcast(graph, "user", sage.users);
    const nn::TensorId shared = nn::product(graph, "user_item", user, sage.items);
    const nn::TensorId both = nn::concat(graph, "head/inputs", {user, sage.items, shared});
    click_layers(graph, spec, both);
    return graph;
  }
  const nn::ClassHead out = nn::class_head(graph, "class", sage.users, slots_of(spec, true)[0]);
  graph.set_logits(out.logits);
  graph.set_ranks(out.ranks);
  return graph;
}

}  // namespace meander::models
