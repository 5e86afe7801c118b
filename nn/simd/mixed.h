// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace meander::nn::mixed {

// The products of a Kernels table (nn/simd/kernels.h) in mixed precision: operands are rounded to
// bfloat16, sums are float32 in an order that depends on the shape alone.
struct Products {
  const char* name;
  std::size_t (*packed_floats)(std::int32_t k, std::int32_t n);
  void (*pack)(const float* b, std::int32_t ldb, std::int32_t k, std::int32_t n, bool transpose,
               float* packed);
  void (*pack_add_rows)(const float* a, const float* b, const float* scale, std::int32_t k,
                        std::int32_t n, float* out);
  void (*pack_add_columns)(const float* a, const float* b, const float* scale, std::int32_t k,
                           std::int32_t n, float* out);
  void (*gemm)(const float* a, std::int32_t lda, const float* packed, const float* bias, float* c,
               std::int32_t ldc, std::int32_t m, std::int32_t k, std::int32_t n, bool accumulate);
  void (*gemm_from)(const float* a, std::int32_t lda, const float* packed, const float* init,
                    std::int32_t ldi, std::int32_t share, float* c, std::int32_t ldc,
                    std::int32_t m, std::int32_t k, std::int32_t n);
  void (*gemm_tn)(const float* a, std::int32_t lda, const float* dc, std::int32_t ldc, float* dw,
                  std::int32_t ldw, std::int32_t m, std::int32_t k, std::int32_t n);
};

// Those of "amx" or "bf16"; null if unknown or more than this machine runs.
const Products* products_for(const char* name);
// The fastest of this machine; null where none is faster than float32.
const Products* products();

}  // namespace meander::nn::mixed
