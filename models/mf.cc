// SPDX-License-Identifier: Apache-2.0
// Matrix factorisation: a user and an item have a vector and a bias each, and a click is as likely
// as their dot product says. No history. The user is the first slot that only a sample has; the
// last column of a row is its bias. Source: Rendle et al., "Neural Collaborative Filtering vs.
// Matrix Factorization Revisited", RecSys 2020 (arXiv:2005.09683).
#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/factor_score.h"

namespace meander::models {

nn::Graph build_mf(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const std::int32_t user = slots_of(spec, false).front();
  const nn::TensorId logits = nn::factor_score(graph, "score", user, 0, spec.l2);
  graph.set_logits(logits);
  nn::click_loss(graph, "loss", logits, 1.0f);
  return graph;
}

}  // namespace meander::models
