// SPDX-License-Identifier: Apache-2.0
// Deep Interest Evolution Network: a GRU draws interests from the behaviours, an auxiliary loss
// teaches it to tell the next behaviour from a drawn one, and a second GRU, gated by attention to
// the target, follows how the interest that concerns the target evolves.
// Source: Zhou et al., AAAI 2019 (arXiv:1809.03672), in the form of mouna99/dien, script/model.py.
#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/attention.h"
#include "nn/ops/auxiliary_loss.h"
#include "nn/ops/gru.h"
#include "nn/ops/pool.h"
#include "nn/ops/product.h"

namespace meander::models {
namespace {

void add_auxiliary_loss(nn::Graph& graph, const ModelSpec& spec, nn::TensorId interests,
                        nn::TensorId history) {
  const nn::TensorId negatives =
      nn::embedding(graph, "negatives", nn::Source::kNegative, slots_of(spec, true));
  nn::auxiliary_loss(graph, "auxiliary", interests, history, negatives,
                     {.weight = spec.auxiliary_weight, .real_rows = spec.auxiliary_mean == "real"});
}

}  // namespace

nn::Graph build_dien(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const nn::TensorId target = target_of(graph, spec);
  const nn::TensorId history = history_of(graph, spec);
  const nn::TensorId sum = nn::pool(graph, "history/sum", history, nn::Pooling::kSum);
  const nn::TensorId shared = nn::product(graph, "target_sum", target, sum);

  const nn::TensorId interests = nn::gru(graph, "gru1", history, spec.hidden);
  if (spec.auxiliary_weight > 0) add_auxiliary_loss(graph, spec, interests, history);
  // Attention compares the target with interests, so it is brought to their width first.
  const nn::TensorId query =
      nn::prelu(graph, "query/prelu", nn::dense(graph, "query", target, spec.hidden));
  const nn::TensorId weights = nn::attention_weights(graph, "attention", query, interests,
                                                     {spec.attention[0], spec.attention[1]});
  const auto evolve = spec.evolution == "agru"    ? nn::agru
                      : spec.evolution == "aigru" ? nn::aigru
                                                  : nn::augru;
  const nn::TensorId evolved = evolve(graph, spec.evolution, interests, weights, spec.hidden);
  click_head(graph, spec, {target, sum, shared, evolved});
  return graph;
}

}  // namespace meander::models
