// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "nn/graph.h"

namespace meander::nn {

// A GRU over the history: kHistory (width of x) -> kHistory (H), the state after each step.
// TensorFlow 1 form, state 0 before the first step:
//   r, u = sigmoid([x, h] . gates/kernel + gates/bias)          gates/kernel (in + H, 2H), bias 1
//   c = tanh([x, r h] . candidate/kernel + candidate/bias)      candidate/kernel (in + H, H), bias
//   0 h' = u h + (1 - u) c
TensorId gru(Graph& graph, std::string name, TensorId x, std::int32_t hidden);

// AUGRU: a GRU whose update gate is turned down by attention, so that it evolves only with what
// concerns the candidate; one run per candidate over steps that all candidates of a group share.
//   u' = (1 - a) u        h' = u' h + (1 - u') c
// x: kHistory. attention: kHistorySample of width 1, in [0, 1]. Result: kSample (H), the state
// after the last step. Source: Zhou et al., "Deep Interest Evolution Network", AAAI 2019
// (arXiv:1809.03672), in the form of its published code, where a = 1 replaces the state by c.
TensorId augru(Graph& graph, std::string name, TensorId x, TensorId attention, std::int32_t hidden);

// The paper's other two. AGRU: attention in the place of the update gate, whose weights are there
// but have no effect.
//   h' = (1 - a) h + a c
// AIGRU: a GRU for each candidate over a x.
TensorId agru(Graph& graph, std::string name, TensorId x, TensorId attention, std::int32_t hidden);
TensorId aigru(Graph& graph, std::string name, TensorId x, TensorId attention, std::int32_t hidden);

}  // namespace meander::nn
