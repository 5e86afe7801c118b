// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"

namespace meander::nn {

// Batch normalisation as DIN and DIEN ran it: its statistics were never updated (mean 0, variance
// 1), so what is left is a learnt scale and shift of each column.
//
//   out = gamma * x / sqrt(1 + 0.001) + beta
//
// Parameters <name>/gamma (1, w), starting at 1, and <name>/beta (1, w), at 0.
// Source: mouna99/dien, script/model.py (batch_normalization without training=True).
TensorId fixed_affine(Graph& graph, std::string name, TensorId x);

}  // namespace meander::nn
