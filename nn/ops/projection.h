// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "nn/layout.h"
#include "nn/matrix.h"
#include "nn/simd/kernels.h"

namespace meander::nn {

// A recurrent op's products with its input, made for some steps at a time as a forward pass reaches
// them: enough rows to fill tiles, few enough to be in cache still when their steps use them.
class Projection {
 public:
  // Before each step, `to` gets bias + x . packed for its rows: (N, width) without gaps. At least
  // `chunk` rows at a time, where so many are left.
  Projection(ConstMatrix x, const float* packed, const float* bias, float* to, std::int32_t width,
             std::int32_t chunk)
      : x_(x), packed_(packed), bias_(bias), to_(to), width_(width), chunk_(chunk) {}
  // Has the rows of `step`, and of all before it, made; `times` of them for each history row.
  void reach(const Layout& layout, std::int32_t step, std::int32_t times = 1) {
    const std::int32_t needed = (layout.step_offset[step] + layout.step_rows[step]) * times;
    if (needed <= done_) return;
    std::int32_t end = needed;
    for (std::int32_t t = step + 1; t < layout.steps() && end - done_ < chunk_; ++t) {
      end += layout.step_rows[t] * times;
    }
    kernels().gemm(x_.row(done_), x_.stride, packed_, bias_,
                   to_ + static_cast<std::size_t>(done_) * width_, width_, end - done_, x_.cols,
                   width_, false);
    done_ = end;
  }

 private:
  const ConstMatrix x_;
  const float* const packed_;
  const float* const bias_;
  float* const to_;
  const std::int32_t width_, chunk_;
  std::int32_t done_ = 0;
};

}  // namespace meander::nn
