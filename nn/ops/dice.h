// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"

namespace meander::nn {

// Where Dice takes its mean and variance from at inference. In training it is always the batch.
enum class DiceStatistics { kBatch, kMoving };

// A PReLU whose kink moves with the data, column by column.
//
//   p = sigmoid((x - mu) / (s + 1e-9))    s = sqrt(variance + 1e-9)
//   out = p * x + (1 - p) * alpha * x
//
// mu, variance (biased): of the column over all samples of the batch, so this op and all after it
// are at batch scope; the gradient flows through both. Parameter <name>/alpha (1, w), starting at
// 0. kMoving adds the statistics <name>/mean (starting at 0) and <name>/variance (1), which a score
// then uses in place of its batch's: it does not depend on who shares the batch.
// Source: Zhou et al., "Deep Interest Network", KDD 2018 (arXiv:1706.06978); batch statistics at
// inference too and the place of the 1e-9 as in mouna99/dien, script/Dice.py.
TensorId dice(Graph& graph, std::string name, TensorId x, DiceStatistics statistics);

}  // namespace meander::nn
