// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "proto/wire.pb.h"

namespace meander::ps {

// How the tables of a message cross the wire: those below `tables` as `precision`, others as f32.
struct WireFormat {
  wire::Precision precision = wire::F32;
  std::uint32_t tables = 0;

  wire::Precision of(std::size_t table) const { return table < tables ? precision : wire::F32; }
  bool operator==(const WireFormat&) const = default;
};

// Bytes of a value.
std::size_t bytes_of(wire::Precision precision);

// Between f32 and what the wire carries, n values: rounded to the nearest, ties to even, the same
// bits on every machine; what is too large for fp16 becomes infinite. F32 copies.
void encode(const float* values, std::size_t n, wire::Precision precision, std::byte* out);
void decode(const std::byte* bytes, std::size_t n, wire::Precision precision, float* out);

// One instruction-set level's conversions (narrow.inc).
struct NarrowKernels {
  void (*to_bf16)(const float* values, std::size_t n, std::uint16_t* out);
  void (*from_bf16)(const std::uint16_t* values, std::size_t n, float* out);
  void (*to_fp16)(const float* values, std::size_t n, std::uint16_t* out);
  void (*from_fp16)(const std::uint16_t* values, std::size_t n, float* out);
};
// By name, as kernels_for() (simd/kernels.h); null when this machine does not run it.
const NarrowKernels* narrow_kernels_for(const char* isa);

}  // namespace meander::ps
