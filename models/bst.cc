// SPDX-License-Identifier: Apache-2.0
// Behaviour Sequence Transformer: one transformer layer over the behaviours with the target as the
// last of them, and a head on what the target's position gives.
// Source: Chen et al., "Behavior Sequence Transformer for E-commerce Recommendation in Alibaba"
// (arXiv:1905.06874), with learned positions instead of buckets of time; the head sees the mean of
// the history instead of every position's result, for histories have no fixed length, and a learned
// slope stands for LeakyReLU's.
#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/add.h"
#include "nn/ops/dropout.h"
#include "nn/ops/layer_norm.h"
#include "nn/ops/pool.h"
#include "nn/ops/product.h"
#include "nn/ops/target_attention.h"
#include "nn/ops/transformer.h"

namespace meander::models {
namespace {

constexpr float kEpsilon = 1e-5f;  // of the layer norms

// norm(x + dropped(change)).
nn::TensorId residual(nn::Graph& graph, const ModelSpec& spec, const std::string& name,
                      nn::TensorId x, nn::TensorId change) {
  change = nn::dropout(graph, name + "/dropout", change, spec.dropout);
  return nn::layer_norm(graph, name + "/norm", nn::add(graph, name + "/residual", x, change),
                        kEpsilon);
}

}  // namespace

nn::Graph build_bst(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const nn::TensorId target = target_of(graph, spec);
  const nn::TensorId history = history_of(graph, spec);
  const std::int32_t width = graph.spec(target).width;
  const nn::TensorId mean = nn::pool(graph, "history/mean", history, nn::Pooling::kMean);
  const nn::TensorId shared = nn::product(graph, "target_mean", target, mean);

  const nn::TensorId placed =
      nn::add_positions(graph, "positions", history, spec.positions, 1.0f, spec.dropout);
  const nn::TensorId query = nn::dense(graph, "attention/query", target, width);
  const nn::TensorId seen =
      nn::target_attention(graph, "attention", query, target, placed, spec.heads);
  const nn::TensorId y =
      residual(graph, spec, "attention", target, nn::dense(graph, "attention/output", seen, width));
  const nn::TensorId hidden =
      nn::prelu(graph, "feed_forward/prelu", nn::dense(graph, "feed_forward/dense1", y, 4 * width));
  const nn::TensorId z = residual(graph, spec, "feed_forward", y,
                                  nn::dense(graph, "feed_forward/dense2", hidden, width));
  click_head(graph, spec, {target, mean, shared, z});
  return graph;
}

}  // namespace meander::models
