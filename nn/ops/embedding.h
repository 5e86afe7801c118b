// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "nn/graph.h"

namespace meander::nn {

// Embedding look-up: the rows of some slots beside each other.
//
//   out[r] = [row(key of slots[0] in row r); row(key of slots[1]); ...]
//
// Returns kSample for Source::kTarget, else kHistory (slots must be `in_history`); the width is the
// sum of the slots' columns. The backward adds into the tables' gradients, duplicates in row order;
// a frozen table has none. A slot that is `projected` gives row . kernel + bias in place of its
// row: parameters <slot>/kernel (width, projected), Glorot uniform, and <slot>/bias, starting at 0,
// which all look-ups of the slot share. Source::kNegative marks the graph as needing negatives; in
// inference its rows are left as they are and it has no ONNX form, so only a loss may read it.
TensorId embedding(Graph& graph, std::string name, Source source, std::vector<std::int32_t> slots);

}  // namespace meander::nn
