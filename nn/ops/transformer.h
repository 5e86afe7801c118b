// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "nn/graph.h"

namespace meander::nn {

// A causal transformer over jagged histories (kHistory, d), in the form of SASRec: behaviour t sees
// behaviours 0 ... t of its own history. There is no padding to skip or to mask.
// Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018
// (arXiv:1808.09781), in the form of kang205/SASRec, modules.py and model.py: of attention's inputs
// only the query is normalised, and what a residual adds is the normalised value; attention has no
// projection behind it.

struct TransformerOptions {
  std::int32_t blocks = 2;
  std::int32_t heads = 1;       // divides d
  std::int32_t positions = 50;  // behaviours that have a position of their own
  float dropout = 0;
  float epsilon = 1e-8f;  // of the layer norms
};

// scale * x + P[positions - length + t], dropped: the newest behaviour is always the last position,
// and those that are older than `positions` share the first.
// Parameter <name>/rows (positions, d), Glorot uniform.
TensorId add_positions(Graph& graph, std::string name, TensorId x, std::int32_t positions,
                       float scale, float dropout);

// One block, on kHistory:
//   q = norm(x)           y = q + dropped(softmax(q Wq . (x Wk)^T / sqrt(d / heads))) x Wv
//   z = norm(y)           out = z + dropped(dropped(relu(z W1)) W2)
// each product with a bias. Parameters <name>/attention/norm/{gamma, beta}, /attention/query and
// /attention/keys_values (d, 2d) /{kernel, bias}, /feed_forward/norm/..., /feed_forward/dense1 and
// /feed_forward/dense2.
TensorId transformer_block(Graph& graph, std::string name, TensorId x,
                           const TransformerOptions& options);

// The whole encoder: sqrt(d) x with positions, the blocks (<name>/block1, ...), <name>/norm. Row t
// of the result is the state after behaviour t.
TensorId transformer(Graph& graph, const std::string& name, TensorId history,
                     const TransformerOptions& options);

}  // namespace meander::nn
