// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace meander::nn {

// Inner loops, one table of them per instruction-set level (x86-64-v2, v3, v4). kernels() is the
// best that this machine runs; MEANDER_ISA=v2|v3|v4 in the environment asks for a lower one.
// Matrices are row-major float32, `ld*` floats from a row to the next. Sums run in one fixed order,
// so a result depends on the shape and the level alone, never on threads or alignment.
struct Kernels {
  const char* isa;

  // Packed weights: a (K, N) matrix in the order gemm() reads it.
  std::size_t (*packed_floats)(std::int32_t k, std::int32_t n);
  // Packs b (K, N); with `transpose`, b is (N, K) and its transpose is packed.
  void (*pack)(const float* b, std::int32_t ldb, std::int32_t k, std::int32_t n, bool transpose,
               float* packed);
  // c (M, N) = a (M, K) . packed + bias (N; may be null). With `accumulate`, c += instead.
  void (*gemm)(const float* a, std::int32_t lda, const float* packed, const float* bias, float* c,
               std::int32_t ldc, std::int32_t m, std::int32_t k, std::int32_t n, bool accumulate);
  // dw (K, N) += a (M, K)^T . dc (M, N): a weight gradient.
  void (*gemm_tn)(const float* a, std::int32_t lda, const float* dc, std::int32_t ldc, float* dw,
                  std::int32_t ldw, std::int32_t m, std::int32_t k, std::int32_t n);
  // out (N) += the sum of the rows of x (M, N): a bias gradient.
  void (*column_sum)(const float* x, std::int32_t ldx, std::int32_t m, std::int32_t n, float* out);
  // y[i] = f(x[i]), n values; y may be x. Absolute error below 3e-7.
  void (*sigmoid)(const float* x, float* y, std::size_t n);
  void (*tanh)(const float* x, float* y, std::size_t n);
  void (*exp)(const float* x, float* y, std::size_t n);
  // y[i] += a * x[i].
  void (*axpy)(float a, const float* x, float* y, std::size_t n);
};

const Kernels& kernels();

}  // namespace meander::nn
