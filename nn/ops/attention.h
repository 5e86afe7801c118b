// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "nn/graph.h"

namespace meander::nn {

struct AttentionOptions {
  std::int32_t hidden1 = 80, hidden2 = 40;  // both sigmoid
};

// How much each behaviour concerns each candidate, as DIN and DIEN score it:
//   score = MLP([q, k, q - k, q * k]),   weight = softmax of the scores over the sample's history
// query: kSample (E); keys: kHistory (E). Result: kHistorySample of width 1.
// The first kernel (4E, hidden1) is applied as q (W1 + W3) + k (W2 - W3) + (q * k) W4: once a
// sample, once a behaviour of a group, once a pair.
// Source: Zhou et al., "Deep Interest Network", KDD 2018 (arXiv:1706.06978), with the softmax of
// the published DIEN code (arXiv:1809.03672).
TensorId attention_weights(Graph& graph, std::string name, TensorId query, TensorId keys,
                           AttentionOptions options = {});

// What attention sees: the sum of the keys (kHistory, E) by their weights (kHistorySample, width
// 1). Result: kSample (E).
TensorId attention_pool(Graph& graph, std::string name, TensorId weights, TensorId keys);

}  // namespace meander::nn
