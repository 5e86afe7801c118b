// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"

namespace meander::nn {

// The score of matrix factorisation, row by row. The last column of both sides is a bias, the
// others are factors:
//   out = a_1 b_1 + ... + a_{w-1} b_{w-1} + a_w + b_w + bias
// a, b: rows of one space, w >= 2 wide. Result: the same rows, width 1. Parameter <name>/bias (1,
// 1). In training it adds to the loss, for each row, l2 / 2 times the squared norms of its a and b,
// divided by the batch's samples. Source: Rendle et al., "Neural Collaborative Filtering vs. Matrix Factorization Revisited",
// RecSys 2020 (arXiv:2005.09683).
TensorId factor_score(Graph& graph, std::string name, TensorId a, TensorId b, float l2 = 0);

}  // namespace meander::nn
