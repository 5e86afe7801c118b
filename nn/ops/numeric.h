// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"

namespace meander::nn {

// The numeric features of the samples, as they came: kSample, width graph.numeric_features() (which
// must not be 0). No gradient.
TensorId numeric_features(Graph& graph, std::string name);

}  // namespace meander::nn
