// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace meander::launch::bench {

// The most floating-point operations a second that `threads` threads of this machine do in
// registers, a multiply-add counting as two. Each takes about `seconds`.
double fma_peak(unsigned threads, double seconds);  // float32, the widest vectors there are
// Products of bfloat16 added up in float32; 0 where the processor has no instruction for it.
double bf16_peak(unsigned threads, double seconds);
// What fma_peak() uses: "AVX-512 FMA", "AVX2 FMA" or "SSE multiply and add".
std::string fma_name();

}  // namespace meander::launch::bench
