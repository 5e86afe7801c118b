// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"

namespace meander::nn {

// a + b, of the same rows and width: a residual.
TensorId add(Graph& graph, std::string name, TensorId a, TensorId b);

}  // namespace meander::nn
