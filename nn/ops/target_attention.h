// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "nn/graph.h"

namespace meander::nn {

// Multi-head dot-product attention of each candidate to the behaviours of its history and to
// itself, as the last position of a transformer has it:
//   out of head h = the sum over j of a_j (x_j Wv_h),  a = softmax_j(q_h . (x_j Wk_h) / sqrt(d /
//   heads))
// with x_j the rows of the history and the candidate's own. query: kSample (d), projected already;
// target: kSample (d); history: kHistory (d). Result: kSample (d), head beside head. Parameters
// <name>/keys and <name>/values (d, d), without biases: a key's is the same for all x_j, which a
// softmax does not feel, and a value's is a constant of the result.
// The kernels are applied to a candidate's query and to what it saw, not to the history: candidates
// are few, behaviours are many.
// Source: Vaswani et al., "Attention Is All You Need" (arXiv:1706.03762).
TensorId target_attention(Graph& graph, std::string name, TensorId query, TensorId target,
                          TensorId history, std::int32_t heads);

}  // namespace meander::nn
