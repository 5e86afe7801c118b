// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace meander::nn {

// Gradients of a kernel whose outputs are fewer than its inputs are summed turned, (outputs,
// inputs): a product works whole vectors of columns, and of the wider side fewer lanes stay empty.

// to (inputs, outputs) += from (outputs, inputs), turned back.
inline void add_turned(const float* from, std::int32_t outputs, std::int32_t inputs, float* to) {
  for (std::int32_t i = 0; i < inputs; ++i, to += outputs) {
    for (std::int32_t j = 0; j < outputs; ++j) to[j] += from[j * inputs + i];
  }
}

}  // namespace meander::nn
