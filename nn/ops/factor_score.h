// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "nn/graph.h"

namespace meander::nn {

// The score of matrix factorisation, straight from the rows of two slots of the target, which never
// become tensors: with a and b these rows, the last column of both a bias, the others factors,
//   out = a_1 b_1 + ... + a_{w-1} b_{w-1} + a_w + b_w + bias
// Both tables are trained (not frozen) and equally wide, w >= 2. Result: kSample, width 1.
// Parameter <name>/bias (1, 1). In training it adds to the loss, for each sample, l2 / 2 times the
// squared norms of its a and b, divided by the batch's samples. Source: Rendle et al., "Neural
// Collaborative Filtering vs. Matrix Factorization Revisited", RecSys 2020 (arXiv:2005.09683).
TensorId factor_score(Graph& graph, std::string name, std::int32_t a, std::int32_t b, float l2 = 0);

}  // namespace meander::nn
