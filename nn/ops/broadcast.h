// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"

namespace meander::nn {

// What was computed once a history, for each of its candidates: kGroup -> kSample.
TensorId broadcast(Graph& graph, std::string name, TensorId groups);

}  // namespace meander::nn
