// SPDX-License-Identifier: Apache-2.0
// Two towers: what a user did and what is on offer become vectors of one space, and their agreement
// is the score.
//
//   u = relu(mean of history . A + a)    i = relu(target . B + b)    logit = (u * i) . c + d
#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/pool.h"
#include "nn/ops/product.h"

namespace meander::models {

nn::Graph build_two_towers(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const nn::TensorId history = history_of(graph, spec);
  const nn::TensorId mean = nn::pool(graph, "history/mean", history, nn::Pooling::kMean);
  const nn::TensorId user = nn::dense(graph, "user", mean, spec.hidden, nn::Activation::kRelu);
  const nn::TensorId item =
      nn::dense(graph, "item", target_of(graph, spec), spec.hidden, nn::Activation::kRelu);
  const nn::TensorId agreement = nn::product(graph, "agreement", user, item);
  const nn::TensorId logits = nn::dense(graph, "output", agreement, 1);
  graph.set_logits(logits);
  nn::click_loss(graph, "loss", logits, 1.0f);
  return graph;
}

}  // namespace meander::models
