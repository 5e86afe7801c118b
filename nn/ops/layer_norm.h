// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"

namespace meander::nn {

// Each row of any row space by its own mean and variance:
//   out = gamma * (x - mean) / sqrt(variance + epsilon) + beta
// Parameters <name>/gamma (1, w), starting at 1, and <name>/beta (1, w), at 0.
// Source: Ba et al., "Layer Normalization" (arXiv:1607.06450).
TensorId layer_norm(Graph& graph, std::string name, TensorId x, float epsilon = 1e-8f);

}  // namespace meander::nn
