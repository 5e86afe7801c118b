// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"

namespace meander::nn {

enum class Activation { kNone, kSigmoid, kRelu };

// A fully connected layer on the rows of any row space.
//
//   out (R, units) = activation(x (R, w) . kernel + bias)
//
// Parameters <name>/kernel (w, units), Glorot uniform, and <name>/bias (1, units), starting at 0.
TensorId dense(Graph& graph, std::string name, TensorId x, std::int32_t units,
               Activation activation = Activation::kNone);

}  // namespace meander::nn
