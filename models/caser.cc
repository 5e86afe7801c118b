// SPDX-License-Identifier: Apache-2.0
// Convolutions over the behaviours, as a third way to draw features from a sequence beside
// recurrent nets and attention: filters of 2 to 4 behaviours in a row, and weighted sums of the
// newest ones. Their values, through one layer, stand for the user beside the target in the head of
// DIN.
// Source: Tang and Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence
// Embedding", WSDM 2018 (arXiv:1809.07426); there a softmax over items ends it.
#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/broadcast.h"
#include "nn/ops/convolution.h"
#include "nn/ops/dropout.h"
#include "nn/ops/product.h"

namespace meander::models {
namespace {

constexpr std::int32_t kFilters = 16;         // of each height
constexpr std::int32_t kNewest = 20;          // behaviours that vertical filters see
constexpr std::int32_t kVerticalFilters = 4;  // as in the paper

}  // namespace

nn::Graph build_caser(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const nn::TensorId target = target_of(graph, spec);
  const nn::TensorId history = history_of(graph, spec);
  const nn::TensorId horizontal =
      nn::horizontal_convolution(graph, "horizontal", history, {2, 3, 4}, kFilters);
  const nn::TensorId vertical =
      nn::vertical_convolution(graph, "vertical", history, kNewest, kVerticalFilters);
  const nn::TensorId both = nn::concat(graph, "convolutions", {horizontal, vertical});
  const nn::TensorId features = nn::dropout(graph, "user/dropout", both, spec.dropout);
  const nn::TensorId user = nn::broadcast(
      graph, "user",
      nn::dense(graph, "features", features, graph.spec(target).width, nn::Activation::kRelu));
  click_head(graph, spec, {target, user, nn::product(graph, "target_user", target, user)});
  return graph;
}

}  // namespace meander::models
