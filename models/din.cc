// SPDX-License-Identifier: Apache-2.0
// Deep Interest Network: the history as seen from the target, by attention.
// Source: Zhou et al., KDD 2018 (arXiv:1706.06978), in the form of mouna99/dien, script/model.py:
// softmax over the history, and the sum of the history beside what attention makes of it.
#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/attention.h"
#include "nn/ops/pool.h"
#include "nn/ops/product.h"

namespace meander::models {

nn::Graph build_din(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const nn::TensorId target = target_of(graph, spec);
  const nn::TensorId history = history_of(graph, spec);
  const nn::TensorId sum = nn::pool(graph, "history/sum", history, nn::Pooling::kSum);
  const nn::TensorId shared = nn::product(graph, "target_sum", target, sum);
  const nn::TensorId weights = nn::attention_weights(graph, "attention", target, history,
                                                     {spec.attention[0], spec.attention[1]});
  const nn::TensorId interest = nn::attention_pool(graph, "interest", weights, history);
  click_head(graph, spec, {target, sum, shared, interest});
  return graph;
}

}  // namespace meander::models
