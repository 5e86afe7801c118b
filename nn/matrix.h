// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace meander::nn {

// Row-major float32 views; `stride` floats from a row to the next. They own nothing.
struct ConstMatrix {
  const float* data = nullptr;
  std::int32_t rows = 0;
  std::int32_t cols = 0;
  std::int32_t stride = 0;
  const float* row(std::int32_t r) const { return data + static_cast<std::int64_t>(r) * stride; }
};
struct Matrix {
  float* data = nullptr;
  std::int32_t rows = 0;
  std::int32_t cols = 0;
  std::int32_t stride = 0;
  float* row(std::int32_t r) const { return data + static_cast<std::int64_t>(r) * stride; }
  operator ConstMatrix() const { return {data, rows, cols, stride}; }  // NOLINT: a view of a view
};

}  // namespace meander::nn
