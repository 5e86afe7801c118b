// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"

namespace meander::nn {

enum class Pooling { kSum, kMean };

// The sum or the mean of each history's rows, for each of its candidates: kHistory -> kSample.
TensorId pool(Graph& graph, std::string name, TensorId history, Pooling pooling);

}  // namespace meander::nn
