// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "nn/graph.h"

namespace meander::nn {

// Tensors of one row space beside each other: out[r] = [parts[0][r]; parts[1][r]; ...].
TensorId concat(Graph& graph, std::string name, std::vector<TensorId> parts);

}  // namespace meander::nn
