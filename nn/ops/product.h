// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"

namespace meander::nn {

// Element by element, in one row space: out = a * b. `a` and `b` may be the same tensor.
TensorId product(Graph& graph, std::string name, TensorId a, TensorId b);

}  // namespace meander::nn
