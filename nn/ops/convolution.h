// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/graph.h"

namespace meander::nn {

// Convolutions over a history, as Caser looks at one: a picture of behaviours by columns.
// Source: Tang and Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence
// Embedding", WSDM 2018 (arXiv:1809.07426), over whole jagged histories in place of the last few.

// Horizontal: filters as wide as a behaviour slide along time, and the largest value of each
// counts:
//   out = max over windows of relu(x_t . kernel_1 + ... + x_{t+h-1} . kernel_h + bias)
// for each height h. A history shorter than h is one window, as if zeros came before it.
// x: kHistory (w). Result: kGroup, `filters` columns for each of `heights`, in this order.
// Parameters <name>/height<h>/kernel (h * w, filters), oldest first, and .../bias (1, filters).
TensorId horizontal_convolution(Graph& graph, std::string name, TensorId x,
                                std::vector<std::int32_t> heights, std::int32_t filters);

// Vertical: each filter is a weighted sum of the newest `length` behaviours, the newest first:
//   out = kernel[v, 0] x_n + kernel[v, 1] x_{n-1} + ...
// x: kHistory (w). Result: kGroup, w columns for each filter. Parameter <name>/kernel (filters,
// length).
TensorId vertical_convolution(Graph& graph, std::string name, TensorId x, std::int32_t length,
                              std::int32_t filters);

}  // namespace meander::nn
