// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "nn/graph.h"

namespace meander::nn {

struct LstmOptions {
  // kSample: a further step that each candidate takes alone from the end of its group's history, so
  // that a target can be the last element of the sequence while the history's work is shared.
  TensorId tail = kNoTensor;  // as wide as the history
};

struct LstmOutputs {
  TensorId states;  // kHistory (H): after each step
  TensorId last;    // kGroup (H): after the last step of the history
  TensorId tail;    // kSample (H): after the tail; kNoTensor without one
};

// An LSTM over the history: kHistory (in) -> states of H. TensorFlow 1 form, one kernel
// (in + H, 4H), bias 0, 1 added to the forget gate, state and cell 0 before the first step:
//   [i, j, f, o] = [x, h] . kernel + bias
//   c' = sigmoid(f + 1) c + sigmoid(i) tanh(j)      h' = sigmoid(o) tanh(c')
// Layers stack: the next one takes `states` as its history and `tail` as its tail.
LstmOutputs lstm(Graph& graph, std::string name, TensorId history, std::int32_t hidden,
                 LstmOptions options = {});

}  // namespace meander::nn
