// SPDX-License-Identifier: Apache-2.0
#include "ps/precision.h"

#include <cstring>

#include "ps/simd/kernels.h"

namespace meander::ps {

namespace v2 {
extern const NarrowKernels kNarrow;
}
namespace v3 {
extern const NarrowKernels kNarrow;
}
namespace v4 {
extern const NarrowKernels kNarrow;
}

const NarrowKernels* narrow_kernels_for(const char* isa) {
  if (kernels_for(isa) == nullptr) return nullptr;
  if (std::strcmp(isa, "v4") == 0) return &v4::kNarrow;
  return std::strcmp(isa, "v3") == 0 ? &v3::kNarrow : &v2::kNarrow;
}

namespace {

const NarrowKernels& narrow() {
  static const NarrowKernels& best = *narrow_kernels_for(kernels().isa);
  return best;
}

}  // namespace

std::size_t bytes_of(wire::Precision precision) {
  return precision == wire::F32 ? sizeof(float) : sizeof(std::uint16_t);
}

void encode(const float* values, std::size_t n, wire::Precision precision, std::byte* out) {
  if (precision == wire::F32) {
    if (n > 0) std::memcpy(out, values, n * sizeof(float));
    return;
  }
  auto* narrowed = reinterpret_cast<std::uint16_t*>(out);
  (precision == wire::BF16 ? narrow().to_bf16 : narrow().to_fp16)(values, n, narrowed);
}

void decode(const std::byte* bytes, std::size_t n, wire::Precision precision, float* out) {
  if (precision == wire::F32) {
    if (n > 0) std::memcpy(out, bytes, n * sizeof(float));
    return;
  }
  const auto* narrowed = reinterpret_cast<const std::uint16_t*>(bytes);
  (precision == wire::BF16 ? narrow().from_bf16 : narrow().from_fp16)(narrowed, n, out);
}

}  // namespace meander::ps
