// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"

namespace meander::nn {

struct DecayOptions {
  float half_life_h = 72;  // hours; where a learned rate starts
  bool learned = false;    // one more factor, exp(log_rate), that all behaviours share
  // Beside it a factor exp(offset), of width 1: for each behaviour (kHistory; of its category), or
  // for each user (kSample; the row of a group's first candidate counts).
  TensorId offset = kNoTensor;
};

// What a history leaves of an interest: the mean of its behaviours (kHistory, E), each weighted by
//   exp(-rate age)     rate = ln 2 / half_life_h * exp(log_rate + offset), age in hours
// which is u_t = u_{t-1} exp(-rate dt) + h_t over the weights' own decayed sum. Result: kGroup (E).
// log_rate: "name/log_rate" (1, 1), 0 at first.
TensorId decayed_pool(Graph& graph, std::string name, TensorId history, DecayOptions options = {});

}  // namespace meander::nn
