// SPDX-License-Identifier: Apache-2.0
// The next item of a session: a recurrent net reads the behaviours, and its state after each is
// compared with the vectors of all items. Items have one vector each, read and compared with.
// Source: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016
// (arXiv:1511.06939), trained on every position of a whole session, with a softmax over all items
// in place of a ranking loss over those of the batch.
#include "nn/ops/next_item.h"

#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/dropout.h"
#include "nn/ops/gru.h"
#include "nn/ops/lstm.h"

namespace meander::models {
namespace {

constexpr std::int32_t kItem = 0;  // the slot that is predicted

nn::TensorId states_of(nn::Graph& graph, const ModelSpec& spec, nn::TensorId history) {
  nn::TensorId x = nn::dropout(graph, "history/dropout", history, spec.dropout);
  for (std::int32_t layer = 1; layer <= spec.layers; ++layer) {
    const std::string name = spec.cell + std::to_string(layer);
    x = spec.cell == "lstm" ? nn::lstm(graph, name, x, spec.hidden).states
                            : nn::gru(graph, name, x, spec.hidden);
  }
  const std::int32_t width = spec.slots[kItem].width;
  if (spec.hidden != width) x = nn::dense(graph, "output", x, width);
  return nn::dropout(graph, "output/dropout", x, spec.dropout);
}

}  // namespace

nn::Graph build_next(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const nn::TensorId target = nn::embedding(graph, "target", nn::Source::kTarget, {kItem});
  const nn::TensorId states = states_of(graph, spec, history_of(graph, spec));
  graph.set_logits(nn::score_candidates(graph, "score", states, target));
  next_loss(graph, spec, states, target, kItem);
  return graph;
}

}  // namespace meander::models
