// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "nn/graph.h"

namespace meander::nn {

struct AuxiliaryLossOptions {
  std::int32_t hidden1 = 100, hidden2 = 50;  // both sigmoid
  float weight = 1.0f;
  // What the sum is divided by: all steps of a batch padded to its longest history but the first,
  // groups * (longest - 1), as published; or, with `real_rows`, the rows that are summed.
  bool real_rows = false;
};

// DIEN's auxiliary loss: the interest state before a click must tell the behaviour that followed,
// h_t, from a negative n_t drawn in its place. For each step t >= 1 whose negative is valid:
//   -log p([s_{t-1}, h_t]) - log(1 - p([s_{t-1}, n_t]))
// with p the first of the two softmax columns of one shared net: scale and shift per column
// (gamma x / sqrt(1.001) + beta), then hidden1, hidden2 and 2 units.
// states: kHistory (H); history, negatives: kHistory (E). Training only: nothing at inference.
// In training the whole work, backward too, is done in forward, while a tile of rows is in cache.
// Source: Zhou et al., "Deep Interest Evolution Network", AAAI 2019 (arXiv:1809.03672); scale and
// denominator as in its published code, without the 1e-8 added to p.
void auxiliary_loss(Graph& graph, std::string name, TensorId states, TensorId history,
                    TensorId negatives, AuxiliaryLossOptions options = {});

}  // namespace meander::nn
