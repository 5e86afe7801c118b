// SPDX-License-Identifier: Apache-2.0
// SASRec: a causal transformer reads a user's behaviours, and its state after each of them predicts
// the next by dot products with the items' own vectors.
// Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018
// (arXiv:1808.09781); with the losses over the whole catalogue as well.
#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/next_item.h"
#include "nn/ops/transformer.h"

namespace meander::models {
namespace {

constexpr std::int32_t kItem = 0;  // of the slots, the only one that is read

}  // namespace

nn::Graph build_sasrec(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const auto items = [&](const char* name, nn::Source source) {
    return nn::embedding(graph, name, source, {kItem});
  };
  const nn::TensorId history = items("history", nn::Source::kHistory);
  const nn::TensorId candidates = items("candidates", nn::Source::kTarget);
  const nn::TensorId states = nn::transformer(graph, "encoder", history,
                                              {.blocks = spec.blocks,
                                               .heads = spec.heads,
                                               .positions = spec.positions,
                                               .dropout = spec.dropout});
  graph.set_logits(nn::score_candidates(graph, "logits", states, candidates));
  if (spec.loss == "bce") {
    const nn::TensorId negatives = items("negatives", nn::Source::kNegative);
    nn::next_bce_loss(graph, "loss", states, history, negatives, candidates);
  } else {
    const bool drawn = spec.loss == "sampled";
    nn::next_softmax_loss(
        graph, "loss", states, kItem,
        {.catalogue = drawn ? nn::Graph::CatalogueUse::kDrawn : nn::Graph::CatalogueUse::kAll});
  }
  nn::rank_target(graph, "ranks", states, kItem);
  return graph;
}

}  // namespace meander::models
