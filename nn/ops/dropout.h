// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "nn/graph.h"
#include "nn/simd/kernels.h"

namespace meander::nn {

// What an op drops of its values, for ops that drop while they compute. An op that drops in several
// places has one of these for each, told apart by name. The op numbers its values as it likes, but
// not by tile or thread, and asks again in backward: nothing is kept.
class DropPlace {
 public:
  DropPlace() = default;  // drops nothing
  // 0 <= rate < 1.
  DropPlace(const std::string& name, float rate);
  // For the kernels; drops nothing at inference.
  Drop in(const OpContext& context) const;
  float rate() const { return rate_; }

 private:
  std::uint64_t number_ = 0;
  float rate_ = 0;
};

// In training, each value becomes 0 with probability `rate`, else 1 / (1 - rate) times as large. At
// inference nothing changes. Rate 0: the result is x itself. Value (row, column) of a tensor of
// width w is number row * w + column.
// Source: Srivastava et al., "Dropout", JMLR 2014, scaled in training as frameworks do.
TensorId dropout(Graph& graph, std::string name, TensorId x, float rate);

}  // namespace meander::nn
