// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace meander::launch::bench {

// The most floating-point operations a second that `threads` threads of this machine do in
// registers, a multiply-add counting as two. Each takes about `seconds`.
double fma_peak(unsigned threads, double seconds);  // float32, the widest vectors there are
std::string fma_name();                             // "AVX-512 FMA", "AVX2 FMA", ...
// Products of bfloat16 added up in float32, by the fastest instruction for them; that of fma_peak()
// where there is none.
double bf16_peak(unsigned threads, double seconds);
std::string bf16_name();  // "AMX bf16 tiles", "AVX-512 bf16 dot products", ...

}  // namespace meander::launch::bench
