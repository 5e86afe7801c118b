// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"

namespace meander::nn {

// out = x where x > 0, else alpha * x, with an alpha for each column.
// Parameter <name>/alpha (1, w), starting at `initial_alpha`.
// Source: He et al., "Delving Deep into Rectifiers", ICCV 2015 (arXiv:1502.01852).
TensorId prelu(Graph& graph, std::string name, TensorId x, float initial_alpha = 0.1f);

}  // namespace meander::nn
