// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace meander::nn {

// Cuts the memory that an op was given into pieces that start at cache lines. With a null base it
// only counts, so the same function that cuts also says how much there must be.
class Carve {
 public:
  explicit Carve(float* base) : base_(base) {}
  float* take(std::size_t floats) {
    float* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (floats + kLineFloats - 1) / kLineFloats * kLineFloats;
    return piece;
  }
  float* take(std::size_t rows, std::size_t cols) { return take(rows * cols); }
  std::size_t floats() const { return used_; }

 private:
  static constexpr std::size_t kLineFloats = 16;
  float* base_;
  std::size_t used_ = 0;
};

}  // namespace meander::nn
