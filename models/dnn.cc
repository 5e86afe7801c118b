// SPDX-License-Identifier: Apache-2.0
// The base model: the head on the target, the mean of the history, and their product. It knows
// which things a user meets together, and nothing of their order.
#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/pool.h"
#include "nn/ops/product.h"

namespace meander::models {

nn::Graph build_dnn(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const nn::TensorId target = target_of(graph, spec);
  const nn::TensorId history = history_of(graph, spec);
  const nn::TensorId mean = nn::pool(graph, "history/mean", history, nn::Pooling::kMean);
  const nn::TensorId shared = nn::product(graph, "target_mean", target, mean);
  click_head(graph, spec, {target, mean, shared});
  return graph;
}

}  // namespace meander::models
